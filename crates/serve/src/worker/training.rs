//! A training: inputs, and the last checkpoint → weights in the storage, and a version of a model.

use std::path::Path;
use std::sync::Arc;

use calotype_request::TrainInput;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::attempt::{Attempt, Watched};
use super::weights::{hex, sum};
use super::{Done, Ended, POLL, Worker, checkpoints, engine};
use crate::engine::Work;
use crate::job::{Job, Kind};
use crate::queue::Record;

impl Worker {
    /// Trains, from the last checkpoint if there is one, and stores what the training has made.
    pub(super) async fn train(
        &self,
        job: &Job,
        attempt: &Arc<Attempt>,
        folder: &Path,
    ) -> Result<Done, Ended> {
        let [inputs, run] = ["inputs", "run"].map(|name| folder.join(name));
        let input = self.begin(job, attempt, &TrainInput::schema(), [&inputs, &run]).await?;
        self.restore(job, attempt, &run).await?;
        let (own, work, to) = (self.engine.clone(), Watched(attempt.clone()), run.clone());
        let trained = engine(move || own.train(&input, &to, &work)).await?;
        let key = self.store(job, attempt, &trained.weights).await?;
        let mut files = Map::new();
        for file in &trained.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, self.store(job, attempt, file).await?.into());
        }
        let weights = trained.weights.clone();
        let sum = tokio::task::spawn_blocking(move || sum(&weights)).await;
        let sum = sum.map_err(|e| Ended::Failed(e.to_string()))?.map_err(|e| Ended::Failed(e.to_string()))?;
        let record = match &job.made.destination {
            Some(destination) => Some(self.version(job, destination, &key, &sum).await?),
            None => None,
        };
        let mut output = json!({ "weights": key });
        if let Some(record) = &record {
            output = json!({ "version": format!("{}:{}", record.parent, record.id), "weights": key });
        }
        Ok(Done { output, metrics: trained.metrics, record, files })
    }

    /// Puts the run's last checkpoint into its folder, if there is one: its own, or else that of the training that it resumes.
    async fn restore(&self, job: &Job, attempt: &Arc<Attempt>, run: &Path) -> Result<(), Ended> {
        let is_own = self.answer(attempt, || attempt.restore(run)).await?;
        let earlier = self.answer(attempt, || self.queue.resumes(job.id())).await?;
        let Some(earlier) = earlier.filter(|_| !is_own) else { return Ok(()) };
        let mut next = Some(earlier.clone());
        while let Some(id) = next {
            self.is_left(&id, attempt).await?;
            let restore = || async { Ok(checkpoints::restore(&self.storage, &id, 0, run).await?.0) };
            if self.answer(attempt, restore).await? {
                return Ok(());
            }
            next = self.answer(attempt, || self.queue.resumes(&id)).await?;
        }
        let known = self.answer(attempt, || self.queue.get(Kind::Training, &earlier)).await?;
        if known.is_none() {
            return Err(Ended::Failed(format!("the checkpoints of the training {earlier} are gone")));
        }
        Watched(attempt.clone())
            .log(&format!("the training {earlier} has left no checkpoint: from the first step"));
        Ok(())
    }

    /// Waits until no worker is at the last checkpoint of a training that was canceled.
    async fn is_left(&self, id: &str, attempt: &Attempt) -> Result<(), Ended> {
        while self.answer(attempt, || self.queue.is_leaving(id)).await? {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                stop = attempt.stopped() => return Err(stop.into()),
            }
        }
        Ok(())
    }

    /// The version that the training makes.
    async fn version(&self, job: &Job, destination: &str, key: &str, sum: &str) -> Result<Record, Ended> {
        let created_at = self.tries(|| self.queue.now()).await.ok_or(Ended::Released)?;
        let id = hex(Sha256::digest(format!("{destination}\n{}\n{sum}", job.id())).as_slice());
        let body: Value =
            json!({ "model": destination, "training": job.id(), "weights": key, "created_at": created_at });
        Ok(Record { kind: "version".into(), id, parent: destination.into(), body, created_at })
    }
}
