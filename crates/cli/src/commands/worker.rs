//! `calotype worker`: computes the jobs that `calotype serve` takes in, on any number of machines.

use calotype_serve::job::Kind;
use calotype_serve::queue::Queue;
use calotype_serve::settings::Settings;
use calotype_tensor::cpu;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::serve::{Only, SharedArgs, failure, places};
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
struct WorkerArgs {
    /// End after one job, or where no job waits
    #[arg(long)]
    once: bool,
    /// Take predictions alone, or trainings and their preparations [default: all]
    #[arg(long, value_enum, value_name = "KIND")]
    only: Option<Only>,
    #[command(flatten)]
    shared: SharedArgs,
}

/// The command's options.
pub fn options(command: Command) -> Command {
    // The about comes last, because the arguments' doc comment would replace it.
    WorkerArgs::augment_args(command)
        .about("Compute jobs of `calotype serve`, with its --database and --storage")
}

/// Takes jobs until a signal ends it.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = WorkerArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    let kinds = match args.only {
        Some(Only::Predict) => vec![Kind::Prediction],
        Some(Only::Train) => vec![Kind::Training, Kind::Preparation],
        None => Kind::ALL.into(),
    };
    let settings = Settings { kinds, once: args.once, ..args.shared.settings()? };
    cpu::keep_heap_small();
    // Before a model is fetched.
    Queue::check_there(&settings).map_err(failure)?;
    let engine = args.shared.engine(1, quiet)?;
    if !quiet {
        output::note(&places(&settings, &engine.model()));
    }
    calotype_serve::worker(settings, engine).map_err(failure)
}
