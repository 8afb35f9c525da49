//! The commands, one file each.

mod bench;
mod bench_train;
mod export;
mod predict;
mod schema;
mod unavailable;

use clap::{ArgMatches, Command};

use crate::failure::Failure;

/// A command: its name, its options, and what it does.
type Row = (&'static str, fn(Command) -> Command, fn(&ArgMatches) -> Result<(), Failure>);

/// Every command, in the order of the help. A new one is a file and a row.
const COMMANDS: &[Row] = &[
    ("predict", predict::options, predict::run),
    ("export", export::options, export::run),
    ("schema", schema::options, schema::run),
    ("bench", bench::options, bench::run),
    ("train", unavailable::options, |_| unavailable::refuse("train")),
    ("demo", unavailable::options, |_| unavailable::refuse("demo")),
];

/// The command line of every command.
pub fn all() -> impl Iterator<Item = Command> {
    COMMANDS.iter().map(|(name, options, _)| options(Command::new(*name)))
}

/// Runs the command called `name`.
pub fn run(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    match COMMANDS.iter().find(|(known, ..)| *known == name) {
        Some((.., run)) => run(matches),
        None => Err(Failure::BadInput(format!("{name}: unknown command"))),
    }
}

/// Sets how many threads compute, before any does.
fn use_threads(threads: Option<u16>) -> Result<(), Failure> {
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
    pool.build_global().map_err(|e| Failure::Failed(format!("--threads {threads}: {e}")))
}
