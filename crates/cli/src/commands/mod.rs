//! The commands, one file each.

mod bench;
mod bench_train;
mod demo;
mod export;
mod predict;
mod schema;
mod train;

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use self::predict::DtypeName;
use crate::failure::Failure;
use crate::{hub, pocket};

/// Bytes of a thread's stack: what a program's first thread has.
const MAIN_STACK: usize = 8 << 20;

/// A command: its name, its options, and what it does.
type Row = (&'static str, fn(Command) -> Command, fn(&ArgMatches) -> Result<(), Failure>);

/// Every command, in the order of the help. A new one is a file and a row.
const COMMANDS: &[Row] = &[
    ("predict", predict::options, predict::run),
    ("train", train::options, train::run),
    ("export", export::options, export::run),
    ("schema", schema::options, schema::run),
    ("demo", demo::options, demo::run),
    ("bench", bench::options, bench::run),
];

/// The command line of every command.
pub fn all() -> impl Iterator<Item = Command> {
    COMMANDS.iter().map(|(name, options, _)| options(Command::new(*name)))
}

/// Runs the command called `name`.
pub fn run(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    match COMMANDS.iter().find(|(known, ..)| *known == name) {
        Some((.., run)) => among_threads(matches, || run(matches)),
        None => Err(Failure::BadInput(format!("{name}: unknown command"))),
    }
}

/// Runs `command` on one of the threads that compute, as many as `--threads` says: from outside, each product would wake
/// them and wait to be woken, which is a fifth of a small model's time.
fn among_threads(
    matches: &ArgMatches,
    command: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    if rayon::current_thread_index().is_some() {
        return command();
    }
    let threads = matches.try_get_one::<u16>("threads").ok().flatten().copied().unwrap_or(0); // 0: as many as processors
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).stack_size(MAIN_STACK);
    pool.build_global().map_err(|e| Failure::Failed(format!("--threads {threads}: {e}")))?;
    rayon::scope(|_| command())
}

/// The folder that `--model` names, or that has the model of this name on a hub; without `--model` that of the pocket
/// model, of which [`pocket::NOTICE`] is to be said.
fn model_folder(model: Option<&Path>, quiet: bool) -> Result<PathBuf, Failure> {
    let folder = model.unwrap_or(Path::new(pocket::NAME));
    // A folder of this name is `./pocket`.
    if folder.as_os_str() == pocket::NAME {
        return pocket::folder();
    }
    if folder.is_dir() {
        return Ok(folder.to_path_buf());
    }
    if let Some(name) = folder.to_str().filter(|name| !folder.exists() && hub::is_name(name)) {
        return hub::folder(name, quiet);
    }
    let what = if folder.exists() { "a file" } else { "nothing there" };
    Err(Failure::BadInput(format!("--model {}: expected a folder, found {what}", folder.display())))
}

/// What networks compute in: what was asked for, or what this CPU is made for.
fn dtype(asked: Option<DtypeName>) -> DtypeName {
    let native = if calotype_tensor::cpu::isa().has_bf16() { DtypeName::Bf16 } else { DtypeName::F32 };
    asked.unwrap_or(native)
}
