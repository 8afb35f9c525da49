//! A prediction: inputs → pictures in the storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_request::{PredictInput, schema};
use serde_json::{Map, Value};

use super::attempt::{Attempt, Watched};
use super::{Done, Ended, Worker, engine};
use crate::job::Job;

/// What the service that this one stands for says where no picture is left.
pub(crate) const FLAGGED: &str = "NSFW content detected. Try running it again, or try a different prompt.";
/// The field of trained weights.
const WEIGHTS: &str = "replicate_weights";

impl Worker {
    /// Makes the pictures of a prediction, and stores them.
    pub(super) async fn predict(
        &self,
        job: &Job,
        attempt: &Arc<Attempt>,
        folder: &Path,
    ) -> Result<Done, Ended> {
        let [inputs, outputs] = ["inputs", "outputs"].map(|name| folder.join(name));
        let schema = PredictInput::command_line_schema();
        let mut input = self.begin(job, attempt, &schema, [&inputs, &outputs]).await?;
        match self.key_of_weights(job, attempt, &input).await? {
            Some(key) => {
                let path = self.weights_of_version(job, attempt, &key, &inputs).await?;
                input.insert(WEIGHTS.into(), schema::join(&[path]).into());
            }
            None => self.keep_weights(&mut input, &inputs).await?,
        }
        let (own, work, out) = (self.engine.clone(), Watched(attempt.clone()), outputs.clone());
        let predicted = {
            let _computes = self.computing.begin(job.made.kind);
            engine(move || own.predict(&input, &out, &work)).await?
        };
        if predicted.pictures.iter().all(Option::is_none) {
            return Err(Ended::Failed(FLAGGED.into()));
        }
        let mut keys = Vec::new();
        for picture in predicted.pictures.iter().flatten() {
            keys.push(Value::from(self.store(job, attempt, picture).await?));
        }
        Ok(Done { output: keys.into(), metrics: predicted.metrics, record: None, files: Map::new() })
    }

    /// The key of the weights of the training whose version a prediction names. `None`: the input names others, or the version is the base
    /// model's.
    async fn key_of_weights(
        &self,
        job: &Job,
        attempt: &Attempt,
        input: &Map<String, Value>,
    ) -> Result<Option<String>, Ended> {
        let named = input.get(WEIGHTS).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
        if named {
            return Ok(None);
        }
        let version = self.answer(attempt, || self.queue.record("version", &job.made.version)).await?;
        let weights = version.as_ref().and_then(|version| version.body["weights"].as_str());
        Ok(weights.map(String::from))
    }

    /// The file of a version's weights, fetched from the storage if it is not kept.
    async fn weights_of_version(
        &self,
        job: &Job,
        attempt: &Attempt,
        key: &str,
        folder: &Path,
    ) -> Result<PathBuf, Ended> {
        if let Some(kept) = self.weights.of_key(key) {
            return Ok(kept);
        }
        let path = folder.join(key.rsplit('/').next().unwrap_or(key));
        if !self.answer(attempt, || self.storage.get_to(key, &path)).await? {
            return Err(Ended::Failed(format!("version: the weights of {} are gone", job.made.version)));
        }
        let (weights, key) = (self.weights.clone(), key.to_owned());
        let kept = tokio::task::spawn_blocking(move || weights.keep(&path, Some(&key))).await;
        match kept {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(e)) => Err(Ended::Failed(format!("{WEIGHTS}: {e}"))),
            Err(e) => Err(Ended::Failed(format!("{WEIGHTS}: {e}"))),
        }
    }

    /// Replaces the files of trained weights in the job's folder by those that are kept between jobs. A file elsewhere is the operator's, by
    /// `--map-url`: it is read where it lies.
    async fn keep_weights(&self, input: &mut Map<String, Value>, folder: &Path) -> Result<(), Ended> {
        let Some(text) = input.get(WEIGHTS).and_then(Value::as_str).map(String::from) else { return Ok(()) };
        let (weights, folder) = (self.weights.clone(), std::path::absolute(folder));
        let kept = tokio::task::spawn_blocking(move || {
            let folder = folder?;
            let keep = |name: PathBuf| match split_scale(&name) {
                (file, scale) if file.starts_with(&folder) && file.is_file() => {
                    let kept = weights.keep(&file, None)?;
                    Ok(match scale {
                        Some(scale) => PathBuf::from(format!("{}:{scale}", kept.display())),
                        None => kept,
                    })
                }
                _ => Ok(name),
            };
            schema::split(&text).into_iter().map(keep).collect::<std::io::Result<Vec<PathBuf>>>()
        });
        match kept.await {
            Ok(Ok(files)) => {
                input.insert(WEIGHTS.into(), schema::join(&files).into());
                Ok(())
            }
            Ok(Err(e)) => Err(Ended::Failed(format!("{WEIGHTS}: {e}"))),
            Err(e) => Err(Ended::Failed(format!("{WEIGHTS}: {e}"))),
        }
    }
}

/// A file, and the scale that follows its name, if one does.
fn split_scale(name: &Path) -> (PathBuf, Option<String>) {
    let text = name.to_string_lossy();
    let parts =
        text.rsplit_once(':').filter(|(_, scale)| !name.exists() && scale.trim().parse::<f64>().is_ok());
    match parts {
        Some((file, scale)) => (file.into(), Some(scale.to_owned())),
        None => (name.into(), None),
    }
}
