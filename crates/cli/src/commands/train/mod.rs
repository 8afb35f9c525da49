//! `calotype train`: pictures → trained weights.
//!
//! ```text
//! args.rs       the options of the command line
//! record.rs     the settings that are stored, and compared when a run is resumed
//! run_dir.rs    the run's folder
//! set.rs        the run's set, with what networks make for it
//! check.rs      whether the content of a run's folder is valid
//! memory.rs     whether the training fits into memory
//! observer.rs   what the command line shows of a run
//! ```

mod args;
mod check;
mod memory;
mod observer;
mod record;
pub mod run_dir;
mod set;

use std::path::Path;
use std::time::{Duration, Instant};

use calotype_models::ModelFolder;
use calotype_request::TrainInput;
use calotype_sdxl::adapters::{AdapterError, Modules, TrainedWeights};
#[cfg(fuzzing)]
use calotype_train::TrainPlan;
use calotype_train::chart::Losses;
use calotype_train::dataset::Dataset;
use calotype_train::forecast::memory::taken;
use calotype_train::forecast::time::Times;
use calotype_train::lr_schedule::LrScheduler;
use calotype_train::run::{self, Best, CheckpointTimer, Metrics, RunDir, RunOptions, Samples, Session};
use calotype_train::stop::Stop;
use calotype_train::trainer::{check_initial, check_model};
use calotype_train::{Error, Trainer, checkpoint};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use indicatif::HumanDuration;
use serde_json::{Map, Value, json};

use self::args::TrainArgs;
use self::memory::Fit;
use self::observer::Console;
use self::record::{Initial, Record};
use self::run_dir::{METRICS, RESULT};
use super::set::{SHORT, Source};
use crate::args::Verbosity;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::shell::typed;
use crate::{fields, interrupt, output, pocket};

/// The command's options, and a flag for every field of the request.
pub fn options(command: Command) -> Command {
    // The about comes last, because the arguments' doc comment would replace it.
    let command = TrainArgs::augment_args(command).about("Fine-tune on pictures");
    fields::options(command, &TrainInput::command_line_schema())
}

/// Checks everything that can be checked early, then trains, and prints the path of the result.
pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = TrainArgs::from_arg_matches(matches).map_err(|e| crate::args::in_one_line(&e))?;
    let quiet = Verbosity::of(matches) == Verbosity::Quiet;
    if settings.end_with_stdin {
        interrupt::end_with_stdin();
    }
    let mut given = fields::given(&TrainInput::command_line_schema(), matches)?;
    let initial = given.remove("replicate_weights");
    let initial = initial.as_ref().and_then(Value::as_str).map(Path::new);
    settings.output.as_deref().map_or(Ok(()), |output| output::check_file(output, &[]))?; // before a model is fetched
    let (record, dir) = match &settings.resume {
        Some(path) => {
            let (dir, mut record) = run_dir::open(path)?;
            if pocket::is(&record.model) {
                record.model = pocket::folder()?; // the cache may be another now, or empty
            }
            record.check_initial(path, initial)?;
            (record.resumed(path, &given, &settings, matches)?, Some(dir))
        }
        None => {
            run_dir::check_new(settings.run_dir.as_deref())?;
            let record = Record::new(&given, &settings, quiet)?;
            (Record { initial: initial.map(Initial::new), ..record }, None)
        }
    };
    let output = settings.output.as_deref().or(record.output.as_deref());
    let read = fields::files_read(matches);
    let inputs = [("--model", record.model.as_path()), ("input_images", &record.plan.input_images)];
    let inputs: Vec<_> = read.iter().map(|(name, path)| (*name, *path)).chain(inputs).collect();
    output.map_or(Ok(()), |output| output::check_file(output, &inputs))?;
    interrupt::install().map_err(Failure::signals)?;
    let notice = (settings.model.model.is_none() && dir.is_none()).then_some(pocket::NOTICE);
    let job = Job::open(record, dir, settings.run_dir.as_deref(), &given, quiet)?;
    if let Some(path) = &settings.forecast {
        return job.write_forecast(path);
    }
    notice.inspect(|notice| job.print_line(notice));
    job.run(settings.run_dir.as_deref())
}

/// The losses of the first `steps` steps of the run in `dir`.
pub fn losses(dir: &Path, steps: usize) -> Result<Losses, Failure> {
    let losses = run::read(&dir.join(METRICS), steps)?.losses;
    Ok(Losses { title: "Loss".into(), steps, ..losses })
}

/// The plan of the run in `dir`, from its settings.
#[cfg(fuzzing)]
pub fn plan(dir: &Path) -> Result<TrainPlan, Failure> {
    let (_, record) = run_dir::open(dir)?;
    Ok(record.plan)
}

/// A training whose set is open and whose settings are complete.
struct Job {
    folder: ModelFolder,
    record: Record,
    dataset: Dataset,
    fit: Fit,
    /// The folder, if it is there: of a resumed run, or of a new one for whose set networks have made something.
    dir: Option<RunDir>,
    resumed: bool,
    quiet: bool,
}

impl Job {
    fn open(
        record: Record,
        dir: Option<RunDir>,
        run_dir: Option<&Path>,
        given: &Map<String, Value>,
        quiet: bool,
    ) -> Result<Job, Failure> {
        let resumed = dir.is_some();
        let folder = ModelFolder::open_paths(&record.paths()).map_err(Error::from);
        let folder = folder.map_err(|e| with_hint(e, resumed && !record.model.exists(), "--model"))?;
        let configs = folder.configs().map_err(Error::from)?;
        check_model(&configs)?;
        let weights = record::weights(&folder)?;
        let record = match &dir {
            None => record.with_model(given, &configs, weights),
            Some(_) if record.weights == weights => record,
            Some(_) => return Err(changed_input("--model", &record.model, "weights and configs")),
        };
        if let Some(initial) = record.initial.as_ref().filter(|_| !resumed) {
            let weights = read_initial(&folder, &initial.path)?;
            check_initial(&folder, &configs, &record.plan, &weights)?;
        }
        let (record, begun) = match resumed {
            true => (record, None),
            false => set::begun(record, given, run_dir)?,
        };
        let Record { request, plan, networks, dtype, .. } = &record;
        let source =
            Source { folder: &folder, configs: &configs, request, plan, networks, dtype: *dtype, quiet };
        let prepared = match dir {
            Some(dir) => set::again(&source, &dir).map(|dataset| (dataset, Some(dir))),
            None => set::new(&source, begun, run_dir),
        };
        let (dataset, dir) = prepared.map_err(|e| {
            with_hint(e, resumed && !record.plan.input_images.exists(), "-i input_images=@PATH")
        })?;
        let record = match resumed {
            false => record.with_set(given, &dataset.examples),
            true if record.set == record::set(&dataset.examples) => record,
            true => {
                return Err(changed_input(
                    "input_images",
                    &record.plan.input_images,
                    "pictures and captions",
                ));
            }
        };
        let fit = memory::fit(&folder, &record, dataset.examples.len())?;
        Ok(Job { folder, record, dataset, fit, dir, resumed, quiet })
    }

    /// Trains in the run's folder. A new run makes the folder, if it is not there; nothing is written before the model is loaded.
    fn run(mut self, run_dir: Option<&Path>) -> Result<(), Failure> {
        let start = Instant::now();
        self.print_line(self.dataset.report().trim_end());
        self.print_line(&format!("{}, {}", self.fit.summary, self.time()?));
        let mut trainer = self.trainer()?;
        if !self.resumed {
            self.begin_from(&mut trainer)?;
        }
        if interrupt::asked() {
            return Err(Failure::Interrupted);
        }
        let dir = match &self.dir {
            Some(dir) if self.resumed => dir.clone(),
            dir => self.begin(dir.clone(), run_dir)?,
        };
        self.dataset.examples = Vec::new(); // encoded to latents by now
        if self.resumed {
            if checkpoint::restore(dir.path(), &mut trainer)?.is_none() {
                self.begin_from(&mut trainer)?;
            }
            dir.sweep();
            run_dir::write_settings(&dir, &self.record)?;
            self.record.steps_before.inspect(|before| self.print_line(&self.other_steps(*before)));
        }
        self.train(&mut trainer, &dir)?;
        let output = self.record.output.clone();
        let is_named = output.is_some();
        let output = output.unwrap_or_else(|| dir.path().join(RESULT));
        write_tar(&trainer.trained_weights(), &output, is_named)?;
        self.print_line(&took(start.elapsed()));
        output::print_path(&output)
    }

    /// Makes the trainer before its first step. Encoding the pictures shows its progress if it takes a while.
    fn trainer(&self) -> Result<Trainer, Failure> {
        let (start, pictures) = (Instant::now(), self.dataset.examples.len());
        let mut progress = Progress::start("encoding the pictures".into(), self.quiet);
        let mut on_picture = |done: usize| {
            if start.elapsed() > SHORT {
                progress.step(done, pictures);
            }
            interrupt::flow()
        };
        let (plan, options) = (self.record.plan.clone(), self.fit.options);
        let trainer = Trainer::new(&self.folder, plan, &self.dataset.examples, options, &mut on_picture);
        progress.finish();
        Ok(trainer?)
    }

    /// Sets the trained parameters to the values of `replicate_weights`, if given.
    fn begin_from(&mut self, trainer: &mut Trainer) -> Result<(), Failure> {
        let Some(initial) = &mut self.record.initial else { return Ok(()) };
        let weights = read_initial(&self.folder, &initial.path)?;
        trainer.begin_from(&weights)?;
        let token = &self.record.plan.token_string;
        if let Some(other) = weights.tokens.keys().find(|word| *word != token) {
            tracing::warn!("replicate_weights: what it learnt as {other} goes on as {token}");
        }
        let crc32 = format!("{:08x}", trainer.values_crc32());
        match &initial.crc32 {
            Some(begun) if *begun != crc32 => {
                Err(changed_input("replicate_weights", &initial.path, "weights"))
            }
            _ => {
                initial.crc32 = Some(crc32);
                Ok(())
            }
        }
    }

    /// The expected times, and the seconds of the rest of the run, without samples and checkpoints.
    fn times(&self) -> Result<(Times, f64), Failure> {
        let Record { plan, validate_every, .. } = &self.record;
        let times = Times::predict(&self.folder, plan, self.fit.options, self.dataset.examples.len())?;
        let done = self.dir.as_ref().and_then(|dir| checkpoint::newest(dir.path()));
        let first = usize::from(done.is_none());
        let done = done.unwrap_or(0);
        let validations = first + plan.steps.saturating_sub(done).div_ceil(*validate_every);
        Ok((times, times.total(plan, done, validations)))
    }

    /// Writes what the training would take, for the service.
    fn write_forecast(&self, path: &Path) -> Result<(), Failure> {
        let (_, seconds) = self.times()?;
        let (steps, bytes) = (self.record.plan.steps, self.fit.bytes as u64);
        let forecast = json!({ "steps": steps, "seconds": seconds, "bytes": bytes });
        output::write_bytes(path, forecast.to_string().as_bytes())
    }

    /// The expected time of the rest of the run, in words.
    fn time(&self) -> Result<String, Failure> {
        let plan = &self.record.plan;
        let (times, total) = self.times()?;
        let total = Duration::from_secs_f64(total);
        let (early, late) = (per_step(times.early_step), per_step(times.late_step));
        let step =
            if plan.pivot() < plan.steps { format!("{early}, after half of them {late}") } else { early };
        let most = if plan.options.stop == Stop::Auto { "at most " } else { "" };
        Ok(format!("{most}about {} ({step})", HumanDuration(total)))
    }

    /// Makes the folder of a new run, if it is not there, and writes the files that exist before its first step.
    fn begin(&self, dir: Option<RunDir>, run_dir: Option<&Path>) -> Result<RunDir, Failure> {
        let dir = dir.map_or_else(|| run_dir::make(run_dir, &self.record.plan.input_images), Ok)?;
        dir.write("dataset.txt", self.dataset.report().as_bytes())?;
        dir.write("contact_sheet.png", &self.dataset.contact_sheet())?;
        run_dir::write_settings(&dir, &self.record)?;
        Ok(dir)
    }

    fn train(&self, trainer: &mut Trainer, dir: &RunDir) -> Result<(), Failure> {
        let (done, steps) = (trainer.steps_done(), self.record.plan.steps);
        let path = dir.path().display();
        if done >= steps {
            self.print_line(&format!("{path}: all {steps} steps are done"));
        }
        let metrics = Metrics::open(dir.path().join(METRICS), done)?;
        let from = if done > 0 { format!(" from step {}", done + 1) } else { String::new() };
        let seed = self.record.plan.seed;
        let title = format!("{path}: {steps} steps{from}, seed {seed}, {}", self.fit.options.dtype);
        let options = self.run_options();
        let every = self.record.checkpoint_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let timer = CheckpointTimer::new(every, Instant::now());
        let mut session = Session { trainer, options: &options, dir, metrics, timer };
        let mut console = Console::new(Progress::resume(title, self.quiet, done), &self.record.model);
        let ended = session.first_validation(&console).and_then(|loss| {
            loss.inspect(|loss| self.print_line(&format!("validation loss {loss:.4} before the first step")));
            session.run(&mut console)
        });
        console.progress.finish();
        let ended = ended.map_err(Failure::from).map(|best| {
            best.inspect(|best| self.print_line(&self.end(best, dir.path())));
        });
        if matches!(ended, Err(Failure::Interrupted)) {
            self.print_line(&format!("resume with: {}", self.resume_with(dir.path())));
        }
        ended
    }

    /// Describes the end of a run that may end before its last step.
    fn end(&self, best: &Best, dir: &Path) -> String {
        let Best { done, stopped, step, loss, lowest } = *best;
        let (path, steps) = (dir.display(), self.record.plan.steps);
        let loss = match lowest {
            true => format!("the lowest validation loss, {loss:.4}"),
            false => format!("a validation loss of {loss:.4}"),
        };
        let weights = format!("the weights are those after step {step}, with {loss}");
        if !stopped {
            return format!("{path}: {weights}");
        }
        let why = format!("ended after step {done} of {steps}, as the validation loss has stopped falling");
        format!("{path}: {why}; {weights}; go on with: {} --stop off", self.resume_with(dir))
    }

    /// What is done on the way.
    fn run_options(&self) -> RunOptions {
        let record = &self.record;
        let samples = |every| Samples {
            every,
            prompts: record.sample_prompts.clone(),
            steps: record.sample_steps,
            side: record.plan.resolution,
            model: record.paths(),
            dtype: record.dtype.into(),
        };
        RunOptions {
            validate_every: record.validate_every,
            keep_checkpoints: record.keep_checkpoints,
            samples: record.sample_every.filter(|_| self.fit.samples).map(samples),
        }
    }

    /// The command that goes on: with `-o`, which is not taken from the run's folder.
    fn resume_with(&self, dir: &Path) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut args = vec!["train".to_owned(), "--resume".into(), path(dir)];
        if let Some(output) = &self.record.output {
            args.extend(["-o".into(), path(output)]);
        }
        typed(&args)
    }

    /// Describes the effect of another number of steps.
    fn other_steps(&self, before: usize) -> String {
        let plan = &self.record.plan;
        let rate = match plan.lr_scheduler {
            LrScheduler::Constant => "the learning rate stays the same".to_owned(),
            LrScheduler::Linear => {
                format!(
                    "from here on the learning rate is that of a run of {0} steps, 0 at step {0}",
                    plan.steps
                )
            }
        };
        let embeddings = match plan.pivot {
            Some(pivot) => format!("; the embeddings train until step {pivot}"),
            None => String::new(),
        };
        format!("{} steps, not {before}: {rate}{embeddings}", plan.steps)
    }

    fn print_line(&self, line: &str) {
        if !self.quiet {
            output::note(line);
        }
    }
}

/// Reads the trained weights that a run begins from.
fn read_initial(folder: &ModelFolder, path: &Path) -> Result<TrainedWeights, Failure> {
    let configs = folder.configs().map_err(Error::from)?;
    let modules = Modules::of(folder, &configs).map_err(Error::from)?;
    Ok(TrainedWeights::read(path, Some(&modules)).map_err(Error::from)?)
}

/// The error of a run's model or set. If it is no longer at its place, the message says how to name the new place.
fn with_hint(failure: impl Into<Failure>, is_missing: bool, option: &str) -> Failure {
    match failure.into() {
        Failure::BadInput(what) if is_missing => {
            Failure::BadInput(format!("{what} ({option} says where it is, if it was moved)"))
        }
        failure => failure,
    }
}

/// The error of a run that cannot be resumed, because an input differs from the one that it began with.
fn changed_input(name: &str, path: &Path, what: &str) -> Failure {
    let problem = format!("expected the {what} that the run began with, found others");
    Failure::BadInput(format!("{name}: {}: {problem}", path.display()))
}

/// `took 9 minutes and 10.9 GB of memory at most`, for comparison with the forecast.
fn took(time: Duration) -> String {
    let memory = taken().map(|bytes| format!(" and {} of memory at most", memory::size(bytes)));
    format!("took {}{}", HumanDuration(time), memory.unwrap_or_default())
}

/// `2.5 s a step`
fn per_step(seconds: f64) -> String {
    let digits = if seconds < 1.0 { 3 } else { 1 };
    format!("{seconds:.digits$} s a step")
}

/// Writes a `trained_model.tar`, complete or not at all. Follows a link only if the user named the file.
fn write_tar(trained: &TrainedWeights, path: &Path, is_named: bool) -> Result<(), Failure> {
    let tar = trained.to_tar().map_err(|e: AdapterError| Failure::Failed(e.to_string()))?;
    match is_named {
        true => output::write_output(path, |to| tar.write(to)),
        false => output::write_file(path, |to| tar.write(to)),
    }
}
