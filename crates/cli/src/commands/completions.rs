//! `calotype completions`: prints a script with which a shell completes command lines.

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

/// The option of the command.
pub fn options(command: Command) -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    command
        .about("Print a script that completes command lines in a shell")
        .arg(shell.help("The shell"))
        .after_help("bash: eval \"$(calotype completions bash)\"; fish: calotype completions fish | source")
}

/// Prints the script.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(shell) = matches.get_one::<Shell>("shell") else { return Ok(()) };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut super::program(), "calotype", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
