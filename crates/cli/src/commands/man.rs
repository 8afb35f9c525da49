//! `calotype man`: writes manual pages, one for each command.

use std::fs;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_mangen::Man;

use crate::failure::Failure;
use crate::output;

/// The option of the command.
pub fn options(command: Command) -> Command {
    let folder = Arg::new("output").short('o').long("output").value_name("DIR").required(true);
    command.about("Write manual pages: calotype.1, and one for each command").arg(
        folder
            .value_parser(value_parser!(PathBuf))
            .help("Folder for the pages, such as ~/.local/share/man/man1"),
    )
}

/// Writes the pages and prints their paths.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(folder) = matches.get_one::<PathBuf>("output") else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|e| Failure::io(folder, &e))?;
    let mut program = super::program().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in [program.clone()].into_iter().chain(commands) {
        let page = Man::new(command);
        let path = folder.join(page.get_filename());
        let mut text = Vec::new();
        page.render(&mut text).map_err(|e| Failure::io(&path, &e))?;
        output::write_bytes(&path, &text)?;
        output::print_path(&path)?;
    }
    Ok(())
}
