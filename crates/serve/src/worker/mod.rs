//! The worker: takes jobs, has the engine compute them, stores what they make.
//!
//! A worker process computes one prediction, one training and one preparation at a time, each in a lane of its own. A training rests while
//! one of the others computes, a preparation while a prediction does ([`share`]). While a job computes, a task prolongs its lease ([`attempt`]).
//!
//! ```text
//! attempt.rs      a job in this worker's hands: what the engine tells of it, whether it is to stop, heartbeats
//! prediction.rs   inputs → pictures in the storage
//! training.rs     inputs, and the last checkpoint → weights in the storage, and a version
//! preparation.rs  inputs → a training's set in the storage
//! checkpoints.rs  a run's folder in the storage, from which another machine goes on
//! upload.rs       what a job has made → where its client wants to have it
//! share.rs        when a job rests
//! scratch.rs      the worker's own folder on disk
//! weights.rs      files of trained weights, kept between jobs
//! ```

mod attempt;
mod checkpoints;
mod prediction;
mod preparation;
mod scratch;
mod share;
#[cfg(test)]
mod tests;
mod training;
mod upload;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use self::attempt::Attempt;
pub(crate) use self::checkpoints::is_there as has_checkpoint;
pub(crate) use self::prediction::FLAGGED;
use self::scratch::Scratch;
use self::share::Computing;
use self::weights::WeightsCache;
use crate::engine::{Engine, EngineError, Stop};
use crate::error::{Error, Result};
use crate::inputs::{InputProblem, Inputs};
use crate::job::{Job, Kind, Status};
use crate::queue::{Outcome, Queue, Record};
use crate::settings::Settings;
use crate::storage::Storage;

/// How long an idle worker waits before it looks for a job again, if nothing wakes it.
const POLL: Duration = Duration::from_secs(1);
/// The first and the longest pause between two tries, where the database or the storage does not answer.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// How long a worker that ends goes on trying.
const LAST_TRIES: Duration = Duration::from_secs(30);

/// What the worker works with.
struct Worker {
    settings: Arc<Settings>,
    queue: Queue,
    storage: Storage,
    inputs: Inputs,
    engine: Arc<dyn Engine>,
    /// True when the worker is to end.
    drain: watch::Receiver<bool>,
    scratch: Scratch,
    weights: WeightsCache,
    /// The jobs that compute now.
    computing: Arc<Computing>,
}

/// The end of a job in this worker's hands.
enum Ended {
    /// The job has its result.
    Done(Box<Done>),
    /// The job has an error.
    Failed(String),
    /// The job was canceled, or another worker has it.
    Canceled,
    /// The worker ends, and somebody else goes on with the job.
    Released,
}

/// The result of a job.
struct Done {
    output: Value,
    metrics: Map<String, Value>,
    record: Option<Record>,
    /// Names of files, and their keys, for the job's progress.
    files: Map<String, Value>,
}

/// Takes jobs of the kinds in `settings` and computes them, until `drain` turns true and the jobs in hand are over or released; with
/// `settings.once`, until one job is over, or no job waits. Returns whether a job was in hand when `drain` turned true.
///
/// # Errors
/// The engine cannot be set up, or the worker's folder cannot be made. A database or storage that does not answer is waited for.
pub async fn run(
    settings: Arc<Settings>,
    queue: Queue,
    storage: Storage,
    inputs: Inputs,
    engine: Arc<dyn Engine>,
    drain: watch::Receiver<bool>,
) -> Result<bool> {
    let scratch = Scratch::open(&settings.data)?;
    let weights = WeightsCache::new(scratch.path().join("weights"))?;
    let own = engine.clone();
    let set_up = tokio::task::spawn_blocking(move || own.set_up()).await;
    let set_up = set_up.map_err(|e| Error::Settings(format!("the model: {e}")))?;
    set_up.map_err(|e| Error::Settings(e.to_string()))?;
    let computing = Arc::default();
    let worker =
        Arc::new(Worker { settings, queue, storage, inputs, engine, drain, scratch, weights, computing });
    let kinds = worker.settings.kinds.clone();
    if worker.settings.once {
        return Ok(worker.clone().lane(kinds).await);
    }
    let mut lanes = tokio::task::JoinSet::new();
    for kind in kinds {
        let count = if kind == Kind::Prediction { worker.settings.workers.max(1) } else { 1 };
        for _ in 0..count {
            lanes.spawn(worker.clone().lane(vec![kind]));
        }
    }
    let mut had_job = false;
    while let Some(ended) = lanes.join_next().await {
        had_job |= ended.map_err(|e| Error::Settings(format!("a worker's lane: {e}")))?;
    }
    Ok(had_job)
}

impl Worker {
    /// Computes jobs of these kinds, one after the other. Returns whether a job was in hand when the worker was told to end.
    async fn lane(self: Arc<Self>, kinds: Vec<Kind>) -> bool {
        let mut changes = self.queue.changes();
        let mut drain = self.drain.clone();
        let (mut pause, mut had_job) = (Pause::default(), false);
        while !*drain.borrow() {
            match self.queue.claim(&self.settings.node, &kinds, self.settings.lease).await {
                Ok(Some(job)) => {
                    pause = Pause::default();
                    self.work(job).await;
                    had_job = *drain.borrow();
                    if self.settings.once {
                        break;
                    }
                }
                Ok(None) if self.settings.once => break,
                Ok(None) => {
                    pause = Pause::default();
                    wait(&mut changes, &mut drain).await;
                }
                Err(e) => {
                    tracing::warn!("{e}");
                    pause.wait().await;
                }
            }
        }
        had_job
    }

    /// Computes a job, and tells the queue how it ended.
    async fn work(&self, job: Job) {
        let start = Instant::now();
        tracing::info!(job = job.id(), attempt = job.attempt, "{} begins", job.made.kind.name());
        let (storage, drain, computing) = (self.storage.clone(), self.drain.clone(), self.computing.clone());
        let hidden = self.inputs.folders().chain([self.scratch.path()]).map(PathBuf::from).collect();
        let attempt = Arc::new(Attempt::new(&job, storage, drain, computing, hidden));
        let stop = CancellationToken::new();
        let beats = tokio::spawn(attempt.clone().beat(self.queue.clone(), self.settings.lease, stop.clone()));
        let ended = match self.scratch.folder(&job) {
            Ok(folder) => {
                let done = match job.made.kind {
                    Kind::Prediction => self.predict(&job, &attempt, folder.path()).await,
                    Kind::Training => self.train(&job, &attempt, folder.path()).await,
                    Kind::Preparation => self.prepare(&job, &attempt, folder.path()).await,
                };
                done.map_or_else(|ended| ended, |done| Ended::Done(Box::new(done)))
            }
            Err(e) => Ended::Failed(e.to_string()),
        };
        let ended = self.sent(&job, &attempt, ended).await;
        let ended = ended.without_folders(attempt.hidden());
        attempt.previews_stored().await;
        stop.cancel();
        let _ = beats.await; // a panic in it has been printed
        tracing::info!(job = job.id(), "{} {}", job.made.kind.name(), ended.name());
        self.end(&job, &attempt, ended, start.elapsed()).await;
    }

    /// Tells the queue how a job ended, and removes what nobody will need.
    async fn end(&self, job: &Job, attempt: &Attempt, ended: Ended, took: Duration) {
        let mut metrics = Map::new();
        metrics.insert("predict_time".into(), json!((took.as_secs_f64() * 1e6).round() / 1e6));
        let mut outcome = Outcome {
            status: Status::Failed,
            output: None,
            error: None,
            metrics,
            logs: String::new(),
            record: None,
        };
        match ended {
            Ended::Canceled => return self.leave(job).await,
            Ended::Released => {
                // What the log has so far, which a release does not carry.
                let update = attempt.news();
                let _ = self.queue.heartbeat(job.id(), job.attempt, self.settings.lease, update).await;
                let released = self.tries(|| self.queue.release(job.id(), job.attempt)).await;
                return if released == Some(false) {
                    self.leave(job).await
                };
            }
            Ended::Failed(error) => outcome.error = Some(error),
            Ended::Done(done) => {
                outcome.status = Status::Succeeded;
                outcome.output = Some(done.output);
                outcome.metrics.extend(done.metrics);
                outcome.record = done.record;
                attempt.set_files(done.files);
                let update = attempt.news();
                let told = self.queue.heartbeat(job.id(), job.attempt, self.settings.lease, update).await;
                told.map_or_else(|e| tracing::warn!("{e}"), drop);
            }
        }
        outcome.logs = attempt.rest_of_logs();
        let succeeded = outcome.status == Status::Succeeded;
        let finished = self.tries(|| self.queue.finish(job.id(), job.attempt, outcome.clone())).await;
        match (finished, job.made.kind) {
            (Some(true), Kind::Prediction) => self.forget(job, is_preview).await,
            (Some(true), Kind::Training) if succeeded => checkpoints::remove(&self.storage, job.id()).await,
            (Some(true), Kind::Training | Kind::Preparation) => {}
            // Somebody else has the job, or it was canceled.
            (Some(false), _) => self.leave(job).await,
            (None, _) => {}
        }
    }

    /// Removes the files of an attempt that has its job no more. The samples of a training stay, which are few and small: whoever has canceled
    /// the training still looks at them.
    async fn leave(&self, job: &Job) {
        let is_training = job.made.kind == Kind::Training;
        self.forget(job, |name| !(is_training && is_preview(name))).await;
        if is_training {
            self.tries(|| self.queue.leave(job.id(), job.attempt)).await;
        }
    }

    /// Removes the files of an attempt whose names `goes` says yes to.
    async fn forget(&self, job: &Job, goes: impl Fn(&str) -> bool) {
        let folder = format!("jobs/{}/{}/", job.id(), job.attempt);
        let files = self.storage.list(&folder).await.unwrap_or_default();
        for (key, _) in files.iter().filter(|(key, _)| goes(&key[folder.len().min(key.len())..])) {
            // Retention finds what is left.
            let _ = self.storage.delete(key).await;
        }
    }

    /// Does what the database has to answer, until it answers. `None`: the worker has to end before.
    async fn tries<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Option<T> {
        let mut pause = Pause::default();
        let mut ends: Option<Instant> = None;
        loop {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(e) => tracing::warn!("{e}"),
            }
            if *self.drain.borrow() {
                let end = *ends.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                if Instant::now() > end {
                    return None;
                }
            }
            pause.wait().await;
        }
    }

    /// [`Self::tries`] for a job in hand, which may have to stop.
    async fn answer<T, F: Future<Output = Result<T>>>(
        &self,
        attempt: &Attempt,
        ask: impl Fn() -> F,
    ) -> std::result::Result<T, Ended> {
        tokio::select! {
            answer = self.tries(ask) => answer.ok_or(Ended::Released),
            stop = attempt.stopped() => Err(stop.into()),
        }
    }

    /// Makes the folders of a job's inputs and of its results, and returns the input with local files in place of its URLs.
    async fn begin(
        &self,
        job: &Job,
        attempt: &Attempt,
        schema: &calotype_request::schema::Schema,
        folders: [&std::path::Path; 2],
    ) -> std::result::Result<Map<String, Value>, Ended> {
        attempt.stage("loading");
        folders.iter().try_for_each(std::fs::create_dir).map_err(|e| Ended::Failed(e.to_string()))?;
        self.resolved(job, attempt, schema, folders[0]).await
    }

    /// The job's input with local files in place of its URLs.
    async fn resolved(
        &self,
        job: &Job,
        attempt: &Attempt,
        schema: &calotype_request::schema::Schema,
        folder: &std::path::Path,
    ) -> std::result::Result<Map<String, Value>, Ended> {
        let mut pause = Pause::default();
        let end = Instant::now() + LAST_TRIES;
        let inputs = self.inputs.of_kind(job.made.kind);
        loop {
            let resolved = crate::inputs::resolve(&inputs, schema, &job.made.input, folder);
            let resolved = tokio::select! {
                resolved = resolved => resolved,
                stop = attempt.stopped() => return Err(stop.into()),
            };
            match resolved {
                Ok(input) => return Ok(input),
                Err(InputProblem::Client { field, problem }) => {
                    return Err(Ended::Failed(format!("{field}: {problem}")));
                }
                Err(InputProblem::Ours(e)) if Instant::now() > end => {
                    return Err(Ended::Failed(e.to_string()));
                }
                Err(InputProblem::Ours(e)) => tracing::warn!("{e}"),
            }
            pause.wait().await;
        }
    }

    /// Stores a file of an attempt, and returns its key. Waits for a storage that does not answer.
    async fn store(
        &self,
        job: &Job,
        attempt: &Attempt,
        path: &std::path::Path,
    ) -> std::result::Result<String, Ended> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.store_as(job, attempt, path, &name).await
    }

    /// [`Self::store`] under another name than the file's.
    async fn store_as(
        &self,
        job: &Job,
        attempt: &Attempt,
        path: &std::path::Path,
        name: &str,
    ) -> std::result::Result<String, Ended> {
        let key = format!("jobs/{}/{}/{name}", job.id(), job.attempt);
        tokio::select! {
            stored = self.tries(|| self.storage.put_file(&key, path)) => match stored {
                Some(_) => Ok(key),
                None => Err(Ended::Released),
            },
            () = attempt.canceled() => Err(Ended::Canceled),
        }
    }
}

impl Ended {
    /// The same without the paths of these folders in the text of an error.
    fn without_folders(self, folders: &[PathBuf]) -> Ended {
        match self {
            Ended::Failed(error) => Ended::Failed(attempt::without(&error, folders)),
            ended => ended,
        }
    }

    fn name(&self) -> String {
        match self {
            Ended::Done(_) => "succeeded".into(),
            Ended::Failed(error) => format!("failed: {error}"),
            Ended::Canceled => "canceled".into(),
            Ended::Released => "released".into(),
        }
    }
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Ended {
        match stop {
            Stop::Cancel => Ended::Canceled,
            Stop::Drain => Ended::Released,
        }
    }
}

impl From<EngineError> for Ended {
    fn from(e: EngineError) -> Ended {
        match e {
            EngineError::Stopped(stop) => stop.into(),
            e => Ended::Failed(e.to_string()),
        }
    }
}

/// Whether this is the name of a preview, or of a training's sample.
fn is_preview(name: &str) -> bool {
    name.starts_with(attempt::PREVIEW)
}

/// The result of the engine on a thread of its own. A panic is an error of the job.
async fn engine<T: Send + 'static>(
    compute: impl FnOnce() -> std::result::Result<T, EngineError> + Send + 'static,
) -> std::result::Result<T, Ended> {
    match tokio::task::spawn_blocking(compute).await {
        Ok(result) => Ok(result?),
        Err(e) => {
            tracing::error!("the engine: {e}");
            Err(Ended::Failed("the computation has failed; the service's log says more".into()))
        }
    }
}

/// Waits until a job may be there, or the worker is to end.
async fn wait(changes: &mut broadcast::Receiver<String>, drain: &mut watch::Receiver<bool>) {
    let change = async {
        // Whatever was missed, the queue knows.
        if let Err(broadcast::error::RecvError::Closed) = changes.recv().await {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = change => {}
        () = tokio::time::sleep(POLL) => {}
        ended = drain.changed() => if ended.is_err() { tokio::time::sleep(POLL).await },
    }
}

/// Pauses that grow.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    async fn wait(&mut self) {
        let pause = self.0.map_or(PAUSES[0], |last| (last * 2).min(PAUSES[1]));
        self.0 = Some(pause);
        tokio::time::sleep(pause).await;
    }
}
