//! What is deleted when.
//!
//! - Jobs that ended longer ago than the days to keep, with their files. Trained weights stay for as long as their version is there.
//! - Checkpoints of trainings that were canceled or have failed, after as many days, or a week if jobs are kept for ever: until then
//!   the trainings can be resumed.
//! - Uploads whose time is over.
//! - What nobody refers to: files of attempts that lost their job, checkpoints of trainings that succeeded, uploads without a record.
//!
//! Any number of processes may sweep at once: deleting twice is deleting.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde_json::Value;

use super::Storage;
use crate::error::Result;
use crate::job::{Job, Kind, Status};
use crate::queue::{Queue, RESUMES, Record};

/// The time between two sweeps.
const EVERY: Duration = Duration::from_secs(3600);
/// A file younger than this is left alone: what refers to it may still be on its way to the database.
const GRACE: i64 = 24 * 3600 * 1000;
/// Jobs and records that are asked for at once.
const PAGE: usize = 100;
const DAY: i64 = 24 * 3600 * 1000;
/// How long a training can be resumed, if jobs are kept for ever.
const RESUMABLE: i64 = 7 * DAY;

/// Sweeps every hour, for ever. A failure is logged; the next sweep tries again.
pub async fn run(storage: Storage, queue: Queue, keep_days: Option<u32>) {
    loop {
        tokio::time::sleep(EVERY).await;
        match sweep(&storage, &queue, keep_days).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!("deleted {deleted} jobs and files that nobody needs any more"),
            Err(e) => tracing::warn!("clean-up: {e}"),
        }
    }
}

/// Sweeps once. Returns the number of jobs and files that were deleted.
///
/// # Errors
/// The database or the storage does not answer.
pub async fn sweep(storage: &Storage, queue: &Queue, keep_days: Option<u32>) -> Result<usize> {
    sweep_at(storage, queue, keep_days, queue.now().await?).await
}

/// [`sweep`], when it is `now`.
async fn sweep_at(storage: &Storage, queue: &Queue, keep_days: Option<u32>, now: i64) -> Result<usize> {
    let (weights, resumed) = (weights(queue).await?, resumed(queue, now).await?);
    let sweeper = Sweeper { storage, queue, now, has_retention: keep_days.is_some(), weights, resumed };
    let old = match keep_days {
        Some(days) => sweeper.old_jobs(now - i64::from(days) * DAY).await?,
        None => 0,
    };
    Ok(old + sweeper.old_uploads().await? + sweeper.orphans().await?)
}

struct Sweeper<'a> {
    storage: &'a Storage,
    queue: &'a Queue,
    now: i64,
    /// Whether jobs go after some days, with their checkpoints.
    has_retention: bool,
    /// The keys of the weights of all versions.
    weights: HashSet<String>,
    /// The trainings whose checkpoints and inputs others are going to begin from.
    resumed: HashSet<String>,
}

impl Sweeper<'_> {
    /// Deletes jobs that ended before `time`, with their files.
    async fn old_jobs(&self, time: i64) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let jobs = self.queue.delete_before(time, PAGE).await?;
            for job in &jobs {
                if self.resumed.contains(job.id()) {
                    continue;
                }
                // A process that is killed here leaves files without a job, which are orphans.
                self.delete_below(&format!("jobs/{}", job.id())).await?;
                self.delete_below(&format!("trainings/{}", job.id())).await?;
            }
            deleted += jobs.len();
            if jobs.len() < PAGE {
                return Ok(deleted);
            }
        }
    }

    /// Deletes what lies below a prefix, except the weights of versions.
    async fn delete_below(&self, prefix: &str) -> Result<()> {
        let found = self.storage.list(prefix).await?;
        if !found.iter().any(|(key, _)| self.weights.contains(key)) {
            return self.storage.delete_prefix(prefix).await;
        }
        for (key, _) in found.iter().filter(|(key, _)| !self.weights.contains(key)) {
            self.storage.delete(key).await?;
        }
        Ok(())
    }

    /// Deletes uploads whose time is over.
    async fn old_uploads(&self) -> Result<usize> {
        let mut deleted = 0;
        for record in records(self.queue, "file").await? {
            let end = record.body.get("expires_at").and_then(Value::as_i64);
            if end.is_some_and(|end| end <= self.now) {
                self.queue.delete_record("file", &record.id).await?;
                self.storage.delete_prefix(&format!("files/{}", record.id)).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Deletes files that nobody refers to.
    async fn orphans(&self) -> Result<usize> {
        let (mut deleted, mut owner) = (0, Owner::default());
        for root in ["jobs", "trainings", "files"] {
            let mut listing = self.storage.listing(root)?;
            while let Some(file) = listing.try_next().await? {
                let age = self.now - file.modified.timestamp_millis();
                let Some((_, rest)) = file.key.split_once('/').filter(|_| age > GRACE) else { continue };
                let id = rest.split('/').next().unwrap_or_default();
                if (owner.root, owner.id.as_str()) != (root, id) {
                    owner = self.owner(root, id).await?;
                }
                let is_needed = owner.needs(&file.key, |job| self.is_resumable(job));
                if !self.weights.contains(&file.key) && !is_needed {
                    self.storage.delete(&file.key).await?;
                    deleted += 1;
                }
            }
        }
        Ok(deleted)
    }

    /// Whether a training that is over can be resumed.
    fn is_resumable(&self, job: &Job) -> bool {
        let end = job.completed_at.unwrap_or(self.now);
        job.status != Status::Succeeded && (self.has_retention || self.now - end <= RESUMABLE)
    }

    /// Whoever the files below `{root}/{id}` belong to.
    async fn owner(&self, root: &'static str, id: &str) -> Result<Owner> {
        let is_resumed = self.resumed.contains(id);
        let mut owner = Owner { root, id: id.to_string(), is_resumed, ..Owner::default() };
        if root == "files" {
            owner.is_upload = self.queue.record("file", id).await?.is_some();
            return Ok(owner);
        }
        for kind in Kind::ALL {
            // A Cog client may give a prediction and a training one id.
            owner.jobs.extend(self.queue.get(kind, id).await?);
        }
        Ok(owner)
    }
}

/// Whoever files belong to: jobs, or an upload.
#[derive(Default)]
struct Owner {
    root: &'static str,
    id: String,
    jobs: Vec<Job>,
    is_upload: bool,
    /// Whether another training is going to begin from these checkpoints, with this input.
    is_resumed: bool,
}

impl Owner {
    fn needs(&self, key: &str, is_resumable: impl Fn(&Job) -> bool) -> bool {
        let needs = |job: &Job| needs(job, self.root, key, is_resumable(job));
        self.is_upload || self.is_resumed || self.jobs.iter().any(needs)
    }
}

/// Whether a job needs a file. A job that goes on may need all of its files. A job that is over needs the files that its answer names, in the input
/// and in the output, those that its last attempt wrote, and its checkpoints for as long as the job can be resumed.
fn needs(job: &Job, root: &str, key: &str, is_resumable: bool) -> bool {
    if !job.status.is_over() {
        return true;
    }
    let of_last = format!("jobs/{}/{}/", job.id(), job.attempt);
    let is_named = [&job.output, &job.progress].into_iter().flatten().any(|value| mentions(value, key));
    let is_input = job.made.input.values().any(|text| text.as_str().is_some_and(|text| text.contains(key)));
    let is_checkpoint = root == "trainings" && is_resumable;
    is_named || is_input || is_checkpoint || key.starts_with(&of_last)
}

/// Whether a text within a value is the key.
fn mentions(value: &Value, key: &str) -> bool {
    match value {
        Value::String(text) => text == key,
        Value::Array(values) => values.iter().any(|value| mentions(value, key)),
        Value::Object(fields) => fields.values().any(|value| mentions(value, key)),
        _ => false,
    }
}

/// The keys of the weights of all versions.
async fn weights(queue: &Queue) -> Result<HashSet<String>> {
    let versions = records(queue, "version").await?;
    Ok(versions
        .iter()
        .filter_map(|version| Some(version.body.get("weights")?.as_str()?.to_string()))
        .collect())
}

/// The trainings whose checkpoints others begin from that are not over, and those that they have begun from themselves: the input may have
/// come with the first. Forgets what trainings that are gone began from.
async fn resumed(queue: &Queue, now: i64) -> Result<HashSet<String>> {
    let (mut resumed, mut gone) = (HashSet::new(), Vec::new());
    for record in records(queue, RESUMES).await? {
        match queue.get(Kind::Training, &record.id).await? {
            Some(job) if !job.status.is_over() => {
                let mut next = Some(record.parent);
                while let Some(id) = next.filter(|id| !resumed.contains(id)) {
                    next = queue.resumes(&id).await?;
                    resumed.insert(id);
                }
            }
            None if now - record.created_at > GRACE => gone.push(record.id),
            Some(_) | None => {}
        }
    }
    for id in gone.iter().filter(|id| !resumed.contains(*id)) {
        queue.delete_record(RESUMES, id).await?;
    }
    Ok(resumed)
}

/// All records of a kind.
async fn records(queue: &Queue, kind: &str) -> Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.last().map(|last| (last.created_at, last.id.clone()));
        let page = queue.records(kind, None, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::{Map, Value, json};

    use super::{DAY, sweep, sweep_at};
    use crate::job::{Kind, NewJob, Status};
    use crate::queue::{Outcome, Queue, Record};
    use crate::settings::Settings;
    use crate::storage::Storage;

    struct Service {
        folder: tempfile::TempDir,
        storage: Storage,
        queue: Queue,
    }

    impl Service {
        async fn new() -> Service {
            let folder = tempfile::tempdir().unwrap();
            let settings = Settings::in_folder(folder.path());
            let (storage, queue) = (Storage::open(&settings).unwrap(), Queue::open(&settings).await.unwrap());
            Service { folder, storage, queue }
        }

        /// Makes a job and lets a worker take it.
        async fn job(&self, id: &str, kind: Kind) {
            let image = format!("/outputs/jobs/{id}/input/1/image-0.png?signature=00");
            let job = NewJob {
                id: id.into(),
                kind,
                owner: "local".into(),
                model: "a/b".into(),
                version: "v".into(),
                input: Map::from_iter([("image".into(), image.into())]),
                destination: None,
                webhook: None,
                webhook_events: Vec::new(),
                source: "api".into(),
                cancel_after: None,
                context: Default::default(),
            };
            self.queue.insert(job, 100).await.unwrap();
            self.queue.claim("worker", &[kind], Duration::from_secs(60)).await.unwrap().unwrap();
        }

        async fn cancel(&self, id: &str) {
            self.queue.cancel(Kind::Training, id).await.unwrap().unwrap();
        }

        async fn finish(&self, id: &str, output: Value) {
            let outcome = Outcome {
                status: Status::Succeeded,
                output: Some(output),
                error: None,
                metrics: Map::new(),
                logs: String::new(),
                record: None,
            };
            assert!(self.queue.finish(id, 1, outcome).await.unwrap());
        }

        async fn record(&self, kind: &str, id: &str, body: Value) {
            let (kind, id) = (kind.to_string(), id.to_string());
            let record = Record { kind, id, parent: "a/b".into(), body, created_at: 0 };
            assert!(self.queue.put_record(record).await.unwrap());
        }

        /// Stores files that are two days old.
        async fn files(&self, keys: &[&str]) {
            for key in keys {
                self.storage.put(key, "x".into()).await.unwrap();
                let file = std::fs::File::options()
                    .write(true)
                    .open(self.folder.path().join("files").join(key))
                    .unwrap();
                file.set_modified(SystemTime::now() - Duration::from_secs(2 * 24 * 3600)).unwrap();
            }
        }

        async fn keys(&self) -> Vec<String> {
            let mut keys = Vec::new();
            for root in ["files", "jobs", "trainings"] {
                keys.extend(self.storage.list(root).await.unwrap().into_iter().map(|(key, _)| key));
            }
            keys
        }
    }

    /// Protects: what nobody refers to goes, after a day; what a job, a version or an upload needs stays.
    #[tokio::test]
    async fn orphans() {
        let service = Service::new().await;
        service.job("running", Kind::Prediction).await;
        service.job("training", Kind::Training).await;
        service.job("done", Kind::Prediction).await;
        service.finish("done", json!(["jobs/done/1/out-0.png", "jobs/done/0/named.png"])).await;
        let end = service.queue.now().await.unwrap();
        service.record("file", "kept", json!({ "expires_at": end + DAY })).await;
        service.record("file", "over", json!({ "expires_at": end })).await;
        service.record("version", "00", json!({ "weights": "jobs/gone/1/trained_model.tar" })).await;
        let kept = [
            "files/kept/a.png",
            "jobs/done/0/named.png",
            "jobs/done/1/out-0.png",
            "jobs/gone/1/trained_model.tar",
            "jobs/running/1/out-0.png",
            "jobs/done/input/1/image-0.png",
            "trainings/training/checkpoints/step-1/x",
        ];
        service.files(&kept).await;
        let orphans = [
            "files/none/a.png",
            "files/over/a.png",
            "jobs/done/0/out-0.png",
            "jobs/done/input/2/image-0.png",
            "jobs/gone/1/loss.png",
            "trainings/done/checkpoints/x",
            "trainings/gone/checkpoints/x",
        ];
        service.files(&orphans).await;
        service.storage.put("jobs/gone/2/new.png", "x".into()).await.unwrap();
        assert_eq!(sweep(&service.storage, &service.queue, None).await.unwrap(), orphans.len());
        let mut expected = kept.to_vec();
        expected.push("jobs/gone/2/new.png");
        expected.sort_unstable();
        assert_eq!(service.keys().await, expected);
        assert_eq!(sweep(&service.storage, &service.queue, None).await.unwrap(), 0);
    }

    /// Protects: retention takes jobs that are over with all of their files, and leaves the weights of a version.
    #[tokio::test]
    async fn retention() {
        let service = Service::new().await;
        service.job("running", Kind::Prediction).await;
        service.job("training", Kind::Training).await;
        service.finish("training", json!({ "weights": "jobs/training/1/trained_model.tar" })).await;
        service.record("version", "00", json!({ "weights": "jobs/training/1/trained_model.tar" })).await;
        for key in [
            "jobs/running/1/a",
            "jobs/training/1/a",
            "jobs/training/1/trained_model.tar",
            "trainings/training/checkpoints/x",
        ] {
            service.storage.put(key, "x".into()).await.unwrap();
        }
        assert_eq!(sweep(&service.storage, &service.queue, Some(1)).await.unwrap(), 0, "a day is not over");
        // The database's clock counts milliseconds.
        while sweep(&service.storage, &service.queue, Some(0)).await.unwrap() == 0 {}
        assert_eq!(service.keys().await, ["jobs/running/1/a", "jobs/training/1/trained_model.tar"]);
        assert!(service.queue.get(Kind::Training, "training").await.unwrap().is_none());
        assert!(service.queue.get(Kind::Prediction, "running").await.unwrap().is_some());
    }

    /// Protects whoever wants to resume a training: its checkpoints stay for a week, or for as long as the operator keeps jobs, and for as long as
    /// another training is going to begin from them.
    #[tokio::test]
    async fn checkpoints_of_trainings_without_a_result() {
        let service = Service::new().await;
        // The input came with the first.
        let checkpoints =
            ["trainings/over/checkpoints/x", "jobs/first/input/1/set.zip", "trainings/resumed/checkpoints/x"];
        for id in ["over", "first", "resumed"] {
            service.job(id, Kind::Training).await;
            service.cancel(id).await;
        }
        service.queue.set_resumes("resumed", "first").await.unwrap();
        service.job("next", Kind::Training).await;
        service.queue.set_resumes("next", "resumed").await.unwrap();
        service.files(&checkpoints).await;
        let now = service.queue.now().await.unwrap();
        let sweep = async |keep_days, days| {
            sweep_at(&service.storage, &service.queue, keep_days, now + days * DAY).await.unwrap()
        };
        assert_eq!(sweep(None, 6).await, 0);
        assert_eq!(sweep(Some(30), 8).await, 0);
        assert_eq!(sweep(None, 8).await, 1);
        assert_eq!(service.keys().await, checkpoints[1..]);
        assert_eq!(sweep(Some(30), 31).await, 3, "the jobs");
        assert_eq!(service.keys().await, checkpoints[1..]);
        service.cancel("next").await;
        assert_eq!(sweep(None, 31).await, 2);
        assert_eq!(sweep(Some(30), 62).await, 1, "the job");
        assert_eq!(service.queue.resumes("next").await.unwrap().as_deref(), Some("resumed"));
        sweep(None, 62).await;
        assert_eq!(service.queue.resumes("next").await.unwrap(), None);
    }
}
