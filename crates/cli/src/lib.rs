//! The `calotype` binary, as a library that `main.rs` and the fuzz targets call.
//!
//! Exit codes: 0 success, 1 failure, 2 invalid input; after a signal 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP). An error is
//! one line on stderr, `error: …`. The paths of written files are printed on stdout, one on each line; everything else goes to
//! stderr.

// What the service alone needs of other modules.
#![cfg_attr(not(feature = "service"), allow(dead_code))]

mod args;
mod commands;
mod dtype;
mod environment;
mod failure;
mod fields;
mod hub;
mod infotext;
mod interrupt;
mod log;
mod model;
mod output;
mod picture;
#[cfg(not(fuzzing))]
mod plans;
#[cfg(fuzzing)]
pub mod plans;
mod pocket;
mod predictor;
mod previews;
mod progress;
mod safety;
#[cfg(feature = "service")]
mod service;
mod shell;

use std::process::ExitCode;

use failure::Failure;

/// The program: reads the command line, runs the command, and writes errors to stderr.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.line());
            failure.exit_code()
        }
    }
}

fn run() -> Result<(), Failure> {
    let matches = match commands::program().try_get_matches() {
        Ok(matches) => matches,
        Err(e) if e.use_stderr() => return Err(args::in_one_line(&e)),
        // Help and version.
        Err(e) => return output::print(&e.to_string()),
    };
    environment::check(std::env::vars_os())?;
    interrupt::outlive_file_limits().map_err(|e| Failure::Failed(format!("signals: {e}")))?;
    let verbosity = match (args::Verbosity::of(&matches), matches.subcommand_name()) {
        (args::Verbosity::Normal, Some(name)) if commands::is_service(name) => args::Verbosity::Verbose,
        (verbosity, _) => verbosity,
    };
    log::start(verbosity.level());
    if matches.get_flag("licenses") {
        return output::print(include_str!("../../../THIRD-PARTY.md"));
    }
    match matches.subcommand() {
        Some((name, matches)) => commands::run(name, matches),
        None => output::print(&commands::program().render_help().to_string()),
    }
}

/// The plan of a request, with its picture and mask. The error is the message that is shown.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn predict_plan(input: calotype_request::PredictInput) -> Result<calotype_sdxl::PredictPlan, String> {
    plans::predict(input).map_err(|failure| log::clean(&failure.line()))
}

/// The plan in the settings of a run's folder, checked as `train --resume` checks it. The error is the message that is shown.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn run_plan(run: &std::path::Path) -> Result<calotype_train::TrainPlan, String> {
    commands::train::plan(run).map_err(|failure| log::clean(&failure.line()))
}

/// The losses of the first `steps` steps of a run. The error is the message that is shown.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn run_losses(run: &std::path::Path, steps: usize) -> Result<calotype_train::chart::Losses, String> {
    commands::train::losses(run, steps).map_err(|failure| log::clean(&failure.line()))
}
