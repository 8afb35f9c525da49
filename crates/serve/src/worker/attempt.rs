//! A job in this worker's hands: what the engine tells of it, whether it is to stop, and the heartbeats that prolong its lease.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::checkpoints::Checkpoints;
use super::share::{Computing, Share};
use crate::engine::{Progress, Stop, Work};
use crate::error::Error;
use crate::job::{Job, Kind, Status};
use crate::queue::{Queue, Update};
use crate::storage::Storage;

/// How the names of previews begin.
pub const PREVIEW: &str = "preview-";
/// The least time between two heartbeats.
const PACE: Duration = Duration::from_millis(500);
/// Heartbeats in the time of a lease.
const BEATS: u32 = 6;
/// The most bytes of a log. What comes later is left out.
const MAX_LOGS: usize = 1 << 20;
/// How long the storage may take for the last previews.
const LAST_PREVIEWS: Duration = Duration::from_secs(10);

/// A job in this worker's hands.
pub struct Attempt {
    id: String,
    kind: Kind,
    attempt: i64,
    storage: Storage,
    handle: Handle,
    /// Folders whose paths are not shown: the worker's, and those that stand for URLs.
    hidden: Vec<PathBuf>,
    news: Mutex<News>,
    has_news: Notify,
    canceled: CancellationToken,
    /// Another worker has the job, or nobody: its checkpoints are no business of this attempt any more.
    lost: CancellationToken,
    drain: watch::Receiver<bool>,
    /// The jobs that compute now, in this worker.
    computing: Arc<Computing>,
    share: Mutex<Share>,
    previews: Mutex<JoinSet<()>>,
    /// Whether a preview of a prediction is on its way to the storage. The next one has to wait for its turn.
    is_storing: AtomicBool,
    checkpoints: Mutex<Checkpoints>,
}

/// Who has a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// This attempt.
    Ours,
    /// Nobody: it was canceled in this attempt's hands, or its time is over.
    Over,
    /// Another worker, or the job is gone.
    Lost,
}

/// What the next heartbeat tells.
#[derive(Default)]
struct News {
    logs: String,
    /// The bytes of the log so far.
    logged: usize,
    progress: Option<Progress>,
    /// The newest preview of each picture, or each sample of a training: its number and its key.
    previews: Vec<(usize, String)>,
    /// The previews so far. Each has a name of its own.
    count: usize,
    files: Map<String, Value>,
    /// Whether the progress, the previews or the files are others than the queue knows.
    is_new: bool,
}

impl Attempt {
    pub fn new(
        job: &Job,
        storage: Storage,
        drain: watch::Receiver<bool>,
        computing: Arc<Computing>,
        hidden: Vec<PathBuf>,
    ) -> Attempt {
        Attempt {
            id: job.id().to_owned(),
            kind: job.made.kind,
            attempt: job.attempt,
            checkpoints: Mutex::new(Checkpoints::new(job.id(), job.attempt, storage.clone())),
            storage,
            handle: Handle::current(),
            hidden,
            news: Mutex::default(),
            has_news: Notify::new(),
            canceled: CancellationToken::new(),
            lost: CancellationToken::new(),
            drain,
            computing,
            share: Mutex::new(Share::new(std::time::Instant::now())),
            previews: Mutex::default(),
            is_storing: AtomicBool::new(false),
        }
    }

    /// Prolongs the lease from time to time, and tells the queue what is new, until `end`. A job that was canceled, or that another
    /// worker has, is to stop.
    pub async fn beat(self: Arc<Self>, queue: Queue, lease: Duration, end: CancellationToken) {
        let mut changes = queue.changes();
        let mut next = Instant::now() + lease / BEATS;
        loop {
            let last = next - lease / BEATS;
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep_until(next) => {}
                () = self.is_told(last + PACE) => {}
                () = self.is_changed(&mut changes) => match self.hold(&queue).await {
                    Ok(Hold::Ours) | Err(_) => continue, // the next heartbeat finds out
                    Ok(hold) => return self.let_go(hold, &queue, lease, &end).await,
                }
            }
            let update = self.news();
            match queue.heartbeat(&self.id, self.attempt, lease, update.clone()).await {
                Ok(true) => {}
                Ok(false) => {
                    let hold = match self.hold(&queue).await {
                        // Its time is over, which the queue's next clean-up writes down.
                        Ok(Hold::Ours) => Hold::Over,
                        hold => hold.unwrap_or(Hold::Lost),
                    };
                    return self.let_go(hold, &queue, lease, &end).await;
                }
                Err(e) => {
                    tracing::warn!(job = self.id, "{e}");
                    self.put_back(update);
                    sleep(PACE).await;
                }
            }
            next = Instant::now() + lease / BEATS;
        }
    }

    /// Waits until something is new, and `at` is past.
    async fn is_told(&self, at: Instant) {
        while !self.lock().has_any() {
            self.has_news.notified().await;
        }
        sleep_until(at).await;
    }

    /// Waits until the queue says that the job has changed, or that changes were missed.
    async fn is_changed(&self, changes: &mut broadcast::Receiver<String>) {
        loop {
            match changes.recv().await {
                Ok(id) if id != self.id => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Who has the job, as the queue says.
    async fn hold(&self, queue: &Queue) -> Result<Hold, Error> {
        let job = queue.get(self.kind, &self.id).await?.filter(|job| job.attempt == self.attempt);
        Ok(match job.map(|job| job.status) {
            Some(Status::Processing) => Hold::Ours,
            Some(status) if status.is_over() => Hold::Over,
            _ => Hold::Lost,
        })
    }

    /// Has the job stop. A training that was canceled is not left before its last checkpoint is stored: whoever resumes the training waits
    /// for the checkpoint.
    async fn let_go(&self, hold: Hold, queue: &Queue, lease: Duration, end: &CancellationToken) {
        if hold == Hold::Lost {
            self.lost.cancel();
        }
        self.canceled.cancel();
        let mut stays = hold == Hold::Over && self.kind == Kind::Training;
        while stays {
            tokio::select! {
                () = end.cancelled() => stays = false,
                () = sleep(lease / BEATS) => {
                    if let Err(e) = queue.stay(&self.id, self.attempt, lease).await {
                        tracing::warn!(job = self.id, "{e}");
                    }
                }
            }
        }
    }

    /// What is new since the last call.
    pub fn news(&self) -> Update {
        let mut news = self.lock();
        let progress = std::mem::take(&mut news.is_new).then(|| news.json());
        Update { logs: std::mem::take(&mut news.logs), progress, output: None }
    }

    fn put_back(&self, update: Update) {
        let mut news = self.lock();
        news.logs.insert_str(0, &update.logs);
        news.is_new |= update.progress.is_some();
        self.has_news.notify_one();
    }

    /// The lines that no heartbeat has told.
    pub fn rest_of_logs(&self) -> String {
        std::mem::take(&mut self.lock().logs)
    }

    /// Sets the files that the progress names.
    pub fn set_files(&self, files: Map<String, Value>) {
        let mut news = self.lock();
        news.files = files;
        news.is_new = true;
    }

    /// Sets the stage before the engine begins.
    pub fn stage(&self, stage: &str) {
        self.progress(Progress {
            stage: stage.into(),
            done: 0,
            total: 0,
            seconds_left: None,
            losses: Vec::new(),
        });
    }

    /// Waits until the previews are stored, for some seconds at most.
    pub async fn previews_stored(&self) {
        let mut previews = std::mem::take(&mut *self.previews.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while previews.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_PREVIEWS, all).await;
    }

    /// Waits until the job was canceled, or another worker has it.
    pub async fn canceled(&self) {
        self.canceled.cancelled().await;
    }

    /// Waits until the job is to stop. A prediction is finished even if the worker ends.
    pub async fn stopped(&self) -> Stop {
        let mut drain = self.drain.clone();
        let drained = async {
            if self.kind == Kind::Prediction || drain.wait_for(|drain| *drain).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.canceled.cancelled() => Stop::Cancel,
            () = drained => Stop::Drain,
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folders whose paths clients are not shown.
    pub fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// Puts the files of the job's last checkpoint into an empty folder. False: there is none.
    pub async fn restore(&self, folder: &Path) -> Result<bool, Error> {
        let (restored, checkpoints) =
            super::checkpoints::restore(&self.storage, &self.id, self.attempt, folder).await?;
        *self.checkpoints() = checkpoints;
        Ok(restored)
    }

    /// Stores a preview, and tells of it.
    async fn store_preview(self: Arc<Self>, index: usize, png: Bytes) {
        let count = {
            let mut news = self.lock();
            news.count += 1;
            news.count
        };
        let key = format!("jobs/{}/{}/{PREVIEW}{index}-{count}.png", self.id, self.attempt);
        let stored = self.storage.put(&key, png).await;
        self.is_storing.store(false, Ordering::SeqCst);
        if let Err(e) = stored {
            return tracing::warn!(job = self.id, "{e}");
        }
        let earlier = self.lock().add(index, key);
        self.has_news.notify_one();
        // The one before the last: its address may still be read.
        if let Some(earlier) = earlier {
            let _ = self.storage.delete(&earlier).await;
        }
    }
}

impl News {
    fn has_any(&self) -> bool {
        self.is_new || !self.logs.is_empty()
    }

    /// Adds a preview. Returns the key of the one before, which nobody is told any more.
    fn add(&mut self, index: usize, key: String) -> Option<String> {
        self.is_new = true;
        match self.previews.iter_mut().find(|(known, _)| *known == index) {
            Some((_, known)) => Some(std::mem::replace(known, key)),
            None => {
                self.previews.push((index, key));
                None
            }
        }
    }

    /// The progress as the queue keeps it.
    fn json(&self) -> Value {
        let mut json = match &self.progress {
            Some(progress) => serde_json::to_value(progress).unwrap_or_default(),
            None => json!({ "stage": "starting", "done": 0, "total": 0 }),
        };
        if !self.previews.is_empty() {
            let previews = self.previews.iter().map(|(index, key)| json!({ "index": index, "key": key }));
            json["previews"] = previews.collect();
        }
        if !self.files.is_empty() {
            json["files"] = self.files.clone().into();
        }
        json
    }
}

/// The attempt, as the engine sees it.
pub struct Watched(pub Arc<Attempt>);

impl Work for Watched {
    fn log(&self, line: &str) {
        let line = without(line, &self.0.hidden);
        let mut news = self.0.lock();
        if news.logged > MAX_LOGS {
            return;
        }
        news.logged += line.len() + 1;
        news.logs.push_str(&line);
        news.logs.push('\n');
        if news.logged > MAX_LOGS {
            news.logs.push_str("(more lines are left out)\n");
        }
        drop(news);
        self.0.has_news.notify_one();
    }

    fn progress(&self, progress: Progress) {
        self.0.progress(progress);
    }

    fn preview(&self, index: usize, png: &[u8]) {
        let Watched(attempt) = self;
        // Samples of a training are kept; of a prediction's previews, the next will do as well.
        if attempt.kind == Kind::Prediction && attempt.is_storing.swap(true, Ordering::SeqCst) {
            return;
        }
        let store = attempt.clone().store_preview(index, Bytes::copy_from_slice(png));
        let mut previews = attempt.previews.lock().unwrap_or_else(PoisonError::into_inner);
        while previews.try_join_next().is_some() {}
        previews.spawn_on(store, &attempt.handle);
    }

    fn checkpoint(&self, folder: &Path) {
        let Watched(attempt) = self;
        let stored = attempt.checkpoints().store(folder, &attempt.handle, &attempt.lost);
        if let Err(problem) = stored {
            tracing::warn!(job = attempt.id, "no checkpoint in the storage: {problem}");
        }
    }

    fn stop(&self) -> Option<Stop> {
        let Watched(attempt) = self;
        match attempt.kind {
            _ if attempt.canceled.is_cancelled() => Some(Stop::Cancel),
            Kind::Training | Kind::Preparation if *attempt.drain.borrow() => Some(Stop::Drain),
            _ => None,
        }
    }

    fn is_paused(&self) -> bool {
        let busy = self.0.computing.is_before(self.0.kind);
        let mut share = self.0.share.lock().unwrap_or_else(PoisonError::into_inner);
        share.rests(busy, std::time::Instant::now())
    }
}

impl Attempt {
    fn progress(&self, progress: Progress) {
        let mut news = self.lock();
        if news.progress.as_ref() == Some(&progress) {
            return;
        }
        news.progress = Some(progress);
        news.is_new = true;
        drop(news);
        self.has_news.notify_one();
    }
}

/// A text with the names alone of files in `folders`: paths are nobody's business.
pub fn without(text: &str, folders: &[PathBuf]) -> String {
    // The root has no name.
    let folders = folders.iter().filter(|folder| folder.file_name().is_some());
    folders.fold(text.to_owned(), |text, folder| without_one(&text, &folder.to_string_lossy()))
}

fn without_one(text: &str, folder: &str) -> String {
    let ends_name = |c: char| c.is_whitespace() || ":,;\"'()".contains(c);
    let mut parts = text.split(folder);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if !part.is_empty() && !part.starts_with(|c| c == '/' || ends_name(c)) {
            clean.push_str(folder); // of another folder, whose name begins alike
            clean.push_str(part);
            continue;
        }
        let (path, rest) = part.split_at(part.find(ends_name).unwrap_or(part.len()));
        clean.push_str(path.rsplit('/').next().unwrap_or(path));
        clean.push_str(rest);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the service's privacy: messages name files, and not where the worker has them.
    #[test]
    fn paths_are_not_told() {
        let folders = ["/data/my work/worker-1", "/sets", "/"].map(PathBuf::from);
        for (text, clean) in [
            (
                "replicate_weights: /data/my work/worker-1/weights/ab/a.tar: not a tar",
                "replicate_weights: a.tar: not a tar",
            ),
            ("/data/my work/worker-1/training2/run: 3 steps", "run: 3 steps"),
            ("image: expected a picture", "image: expected a picture"),
            (
                "image: /sets/a/b.txt: cannot be read; /sets2/c and /d are others",
                "image: b.txt: cannot be read; /sets2/c and /d are others",
            ),
            ("\"/data/my work/worker-1/a/b.png\" and /data/my work/worker-1/c/d.png", "\"b.png\" and d.png"),
        ] {
            assert_eq!(without(text, &folders), clean);
        }
    }
}
