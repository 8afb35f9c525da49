//! Trainings: requests → `calotype train` in a run's folder, as a process of its own.

use std::ffi::OsString;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use calotype_request::TrainInput;
use calotype_serve::engine::{EngineError, Stop, Trained, Work};
use calotype_train::run::{RESULT, SETTINGS};
use serde_json::{Map, Value};

use super::arguments;
use super::child::Child;
use super::follow::Follow;
use super::lines::Lines;
use crate::failure::Failure;

/// How often the process and its folder are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often samples are made, in parts of a run, and the least steps between them.
const SAMPLES: u64 = 5;
const SAMPLE_STEPS: u64 = 20;
/// The files beside the weights that are kept.
const FILES: [&str; 3] = ["loss.png", "contact_sheet.png", "dataset.txt"];
/// The most seconds of a run that are lost with its worker, but for a step and the way to the storage.
const CHECKPOINT_SECONDS: u32 = 300;

/// Trains, and prepares trainings.
pub struct Trainings {
    /// This program.
    pub(super) program: PathBuf,
    /// The options of a run that begins: model, networks, dtype, …
    pub(super) options: Vec<OsString>,
    /// Those of a run that goes on, whose folder has the others: where the model is now, and how many threads there are.
    options_of_resumed: Vec<OsString>,
}

impl Trainings {
    /// # Errors
    /// The system does not say where this program is.
    pub fn new(options: Vec<OsString>, options_of_resumed: Vec<OsString>) -> Result<Trainings, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::Failed(format!("the program's path: {e}")))?;
        Ok(Trainings { program, options, options_of_resumed })
    }

    /// Trains in a run's folder, which is empty, or has a run that goes on.
    ///
    /// # Errors
    /// The request is wrong, the training fails, or `work` stops it.
    pub fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Trained, EngineError> {
        arguments::check_texts(input)?;
        let texts = tempfile::Builder::new().prefix("texts-").tempdir_in(folder.parent().unwrap_or(folder));
        let texts = texts.map_err(failed)?;
        let args = self.args(input, folder, texts.path()).map_err(failed)?;
        let (mut follow, lines) = (Follow::new(folder), Lines::default());
        // Before its beginning a run has nothing to go on from.
        let end =
            |child: &mut Child| if folder.join(SETTINGS).is_file() { child.end() } else { child.kill() };
        let (status, stop) = thread::scope(|scope| {
            let mut storing: Option<ScopedJoinHandle<()>> = None;
            self.run(&args, &lines, Some(work), work, end, || {
                follow.tell(work);
                if storing.as_ref().is_none_or(ScopedJoinHandle::is_finished) && follow.has_new_checkpoint() {
                    lines.run_has_begun();
                    storing = Some(scope.spawn(|| work.checkpoint(folder)));
                }
            })
        })?;
        follow.tell(work);
        if let Some(stop) = stop.filter(|stop| *stop == Stop::Cancel || !status.success()) {
            work.checkpoint(folder);
            return Err(EngineError::Stopped(stop));
        }
        if !status.success() {
            return Err(lines.error(status, input));
        }
        let files = FILES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        let mut metrics = Map::new();
        if let Some((steps, loss)) = follow.last_loss() {
            metrics.extend([("train_steps".into(), steps.into()), ("loss".into(), loss.into())]);
        }
        Ok(Trained { weights: folder.join(RESULT), files: files.collect(), metrics })
    }

    /// Runs this program until its process has ended. The process rests when `work` says so, and `end` is called when the job is to stop. `told`
    /// hears the lines of the process, and `look` is called on the way. Returns how the process ended, and why the job was to stop, if it was.
    ///
    /// # Errors
    /// The system does not start the process, or does not say how it ended.
    pub(super) fn run(
        &self,
        args: &[OsString],
        lines: &Lines,
        told: Option<&dyn Work>,
        work: &dyn Work,
        end: impl Fn(&mut Child),
        look: impl FnMut(),
    ) -> Result<(ExitStatus, Option<Stop>), EngineError> {
        let (child, stderr) = Child::start(&self.program, args).map_err(failed)?;
        let watched = thread::scope(|scope| {
            let reading = scope.spawn(|| lines.read(BufReader::new(stderr), told));
            let watched = watch(child, work, end, look);
            let _ = reading.join(); // a panic has been printed
            watched
        });
        watched.map_err(failed)
    }

    /// The command line.
    ///
    /// # Errors
    /// A text cannot be written into a file in `texts`.
    pub(super) fn args(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        texts: &Path,
    ) -> io::Result<Vec<OsString>> {
        let resumed = folder.join(SETTINGS).is_file();
        let mut args: Vec<OsString> = vec!["train".into(), "--end-with-stdin".into()];
        args.extend([if resumed { "--resume" } else { "--run-dir" }.into(), folder.into()]);
        args.push(format!("--checkpoint-seconds={CHECKPOINT_SECONDS}").into());
        args.extend(if resumed { &self.options_of_resumed } else { &self.options }.iter().cloned());
        if !resumed {
            let given = input.get("max_train_steps").and_then(Value::as_u64);
            let steps = given.unwrap_or(TrainInput::default().max_train_steps as u64);
            args.push(format!("--sample-every={}", (steps / SAMPLES).max(SAMPLE_STEPS)).into());
        }
        let mut given = input.clone();
        // The others are in the folder of a run that goes on.
        given.retain(|name, _| !resumed || ["input_images", "verbose"].contains(&name.as_str()));
        args.extend(arguments::fields(&TrainInput::schema(), &given, texts)?);
        Ok(args)
    }
}

/// Watches a process until it has ended. Also says why it was to stop, if it was.
fn watch(
    mut child: Child,
    work: &dyn Work,
    end: impl Fn(&mut Child),
    mut look: impl FnMut(),
) -> io::Result<(ExitStatus, Option<Stop>)> {
    let mut stop = None;
    loop {
        if let Some(status) = child.ended()? {
            return Ok((status, stop));
        }
        stop = work.stop().or(stop);
        match stop {
            Some(_) => end(&mut child),
            None => child.rest(work.is_paused()),
        }
        look();
        thread::sleep(LOOK);
    }
}

pub(super) fn failed(e: io::Error) -> EngineError {
    EngineError::Failed(e.to_string())
}
