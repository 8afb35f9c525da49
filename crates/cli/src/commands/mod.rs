//! The commands, one file each.

mod bench;
mod completions;
mod demo;
mod export;
mod man;
mod networks;
mod predict;
mod preprocess;
mod schema;
#[cfg(feature = "service")]
mod serve;
mod set;
#[cfg(feature = "service")]
mod token;
pub mod train;
mod watermark;
#[cfg(feature = "service")]
mod worker;

use calotype_tensor::cpu::Workers;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::environment;
use crate::failure::Failure;

/// A command: its name, its options, and its function.
type Row = (&'static str, fn(Command) -> Command, fn(&ArgMatches) -> Result<(), Failure>);

/// Every command, in the order of the help. A new command is a file and a row here.
const COMMANDS: &[Row] = &[
    ("predict", predict::options, predict::run),
    ("preprocess", preprocess::options, preprocess::run),
    ("train", train::options, train::run),
    ("export", export::options, export::run),
    ("watermark", watermark::options, watermark::run),
    ("schema", schema::options, schema::run),
    ("demo", demo::options, demo::run),
    #[cfg(feature = "service")]
    ("serve", serve::options, serve::run),
    #[cfg(feature = "service")]
    ("worker", worker::options, worker::run),
    #[cfg(feature = "service")]
    ("token", token::options, token::run),
    ("completions", completions::options, completions::run),
    ("man", man::options, man::run),
    ("bench", bench::options, bench::run),
];

/// The whole command line.
pub fn program() -> Command {
    let quiet = Arg::new("quiet").short('q').long("quiet").help("Print errors only");
    // Without a long name, because `verbose` is a field of trainings.
    let verbose = Arg::new("verbose").short('v').help("Print what is being done; twice for more");
    let licenses =
        Arg::new("licenses").long("licenses").help("Print the licences of all that the binary contains");
    Command::new("calotype")
        .version(env!("CARGO_PKG_VERSION"))
        .about("SDXL, generation and fine-tuning, in one binary")
        .subcommands(COMMANDS.iter().map(|(name, options, _)| options(Command::new(*name))))
        .arg(quiet.global(true).action(ArgAction::SetTrue).conflicts_with("verbose"))
        .arg(verbose.global(true).action(ArgAction::Count))
        .arg(licenses.action(ArgAction::SetTrue))
        .infer_long_args(false)
        .after_help(environment::help())
}

/// The commands that serve others: work is given to threads of its own, and the log says what is done.
const SERVICES: [&str; 2] = ["serve", "worker"];

/// Whether the command with this name serves others.
pub fn is_service(name: &str) -> bool {
    SERVICES.contains(&name)
}

/// Runs the command with this name.
pub fn run(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    match COMMANDS.iter().find(|(known, ..)| *known == name) {
        Some((.., run)) if is_service(name) => run(matches),
        Some((.., run)) => among_threads(matches, || run(matches)),
        None => Err(Failure::BadInput(format!("{name}: unknown command"))),
    }
}

/// Runs `command` on one of the compute threads, of which there are as many as `--threads` says. From another thread, each
/// product would wake the compute threads and wait for them, which takes a fifth of a small model's time.
fn among_threads(
    matches: &ArgMatches,
    command: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if rayon::current_thread_index().is_some() {
        return command();
    }
    let threads = matches.try_get_one::<u16>("threads").ok().flatten().copied().unwrap_or(0); // 0: as many as processors
    if threads == 0 {
        environment::threads(std::env::var_os("RAYON_NUM_THREADS"))?;
    }
    let workers = Workers::new(threads.into());
    workers.map_err(|e| Failure::Failed(format!("--threads {threads}: {e}")))?.run(command)
}
