//! The commands, one file each.

mod bench;
mod completions;
mod demo;
mod export;
mod man;
mod predict;
mod schema;
pub mod train;
mod watermark;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use calotype_models::wrong_kind;
use calotype_tensor::cpu::Workers;
use clap::{Arg, ArgAction, ArgMatches, Command};

use self::predict::DtypeName;
use crate::failure::Failure;
use crate::{environment, hub, pocket};

/// A command: its name, its options, and its function.
type Row = (&'static str, fn(Command) -> Command, fn(&ArgMatches) -> Result<(), Failure>);

/// Every command, in the order of the help. A new command is a file and a row here.
const COMMANDS: &[Row] = &[
    ("predict", predict::options, predict::run),
    ("train", train::options, train::run),
    ("export", export::options, export::run),
    ("watermark", watermark::options, watermark::run),
    ("schema", schema::options, schema::run),
    ("demo", demo::options, demo::run),
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

/// Runs the command with this name.
pub fn run(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    match COMMANDS.iter().find(|(known, ..)| *known == name) {
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

/// Finds the model's folder. `--model` names the folder, or a model on a hub, which is fetched. Without `--model`, the model is
/// the pocket model, and the caller prints [`pocket::NOTICE`].
fn model_folder(model: Option<&Path>, quiet: bool) -> Result<PathBuf, Failure> {
    let folder = model.unwrap_or(Path::new(pocket::NAME));
    // A folder named `pocket` is given as `./pocket`.
    if folder.as_os_str() == pocket::NAME {
        return pocket::folder();
    }
    if folder.is_dir() {
        return Ok(folder.to_path_buf());
    }
    let bad = |what: &str| Failure::BadInput(format!("--model {}: {what}", folder.display()));
    if folder.exists() {
        return Err(bad(&no_folder(folder)));
    }
    match folder.to_str().filter(|text| hub::is_name(text)) {
        Some(name) => hub::folder(name, quiet),
        None => Err(bad("expected a folder, or OWNER/NAME of a model on the hub, found nothing there")),
    }
}

/// Describes a file that was given as a model folder, and how to make a folder of it.
fn no_folder(file: &Path) -> String {
    let mut start = Vec::new();
    let opened = file.is_file().then(|| File::open(file).ok()).flatten(); // a pipe would be waited for
    let _ = opened.map(|file| file.take(512).read_to_end(&mut start));
    let ending = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let expected = "expected a folder in diffusers' layout";
    let convert = format!(
        "in Python, diffusers' StableDiffusionXLPipeline.from_single_file({:?}).save_pretrained(\"FOLDER\") makes it one",
        file.display().to_string()
    );
    match (ending.as_str(), wrong_kind(&start)) {
        ("ckpt" | "pt" | "pth" | "bin", Some(kind)) if kind.contains("pickled") => {
            format!("{expected}, found pickled weights: {convert}")
        }
        (_, Some(kind)) => format!("{expected}, found {kind}"),
        ("safetensors", None) => {
            format!("{expected}, found a single-file checkpoint, which is not supported yet: {convert}")
        }
        _ => format!("{expected}, found a file"),
    }
}

/// The dtype of the networks: the given one, or the one that suits this CPU.
fn dtype(asked: Option<DtypeName>) -> DtypeName {
    let native = if calotype_tensor::cpu::isa().has_bf16() { DtypeName::Bf16 } else { DtypeName::F32 };
    asked.unwrap_or(native)
}
