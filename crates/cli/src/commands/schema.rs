//! `calotype schema predict|train`: the JSON schema of a request.

use calotype_request::{PredictInput, TrainInput};
use clap::{Arg, ArgMatches, Command};

use crate::failure::Failure;
use crate::output;

/// The command's options.
pub fn options(command: Command) -> Command {
    let of = Arg::new("of").value_name("COMMAND").required(true).value_parser(["predict", "train"]);
    command.about("Print the JSON schema of a request").arg(of.help("Whose request"))
}

/// Prints the schema.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let schema = match matches.get_one::<String>("of").map(String::as_str) {
        Some("train") => TrainInput::schema(),
        _ => PredictInput::schema(),
    };
    output::print(&format!("{:#}\n", schema.json()))
}
