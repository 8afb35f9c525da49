//! A preparation: inputs → a training's set in the storage, and what the training will take.

use std::path::Path;
use std::sync::Arc;

use calotype_request::TrainInput;
use serde_json::{Map, Value, json};

use super::attempt::{Attempt, Watched};
use super::{Done, Ended, Worker, engine};
use crate::engine::PreparedPicture;
use crate::job::Job;

impl Worker {
    /// Makes the set of a training, and stores it whole and picture by picture.
    pub(super) async fn prepare(
        &self,
        job: &Job,
        attempt: &Arc<Attempt>,
        folder: &Path,
    ) -> Result<Done, Ended> {
        let [inputs, outputs] = ["inputs", "outputs"].map(|name| folder.join(name));
        let input = self.begin(job, attempt, &TrainInput::schema(), [&inputs, &outputs]).await?;
        let (own, work, out) = (self.engine.clone(), Watched(attempt.clone()), outputs.clone());
        let prepared = {
            let _computes = self.computing.begin(job.made.kind);
            engine(move || own.prepare(&input, &out, &work)).await?
        };
        let set = self.store(job, attempt, &prepared.set).await?;
        let contact_sheet = self.store(job, attempt, &prepared.contact_sheet).await?;
        let mut pictures = Vec::with_capacity(prepared.pictures.len());
        for (number, picture) in prepared.pictures.iter().enumerate() {
            pictures.push(self.store_picture(job, attempt, number, picture).await?);
        }
        let output = json!({
            "set": set,
            "contact_sheet": contact_sheet,
            "pictures": pictures,
            "warnings": prepared.warnings,
            "forecast": prepared.forecast,
        });
        Ok(Done { output, metrics: prepared.metrics, record: None, files: Map::new() })
    }

    /// Stores a picture and its mask. The names in a set may be any, so that their keys have numbers.
    async fn store_picture(
        &self,
        job: &Job,
        attempt: &Attempt,
        number: usize,
        picture: &PreparedPicture,
    ) -> Result<Value, Ended> {
        let key = self.store_as(job, attempt, &picture.picture, &format!("picture-{number}.png")).await?;
        let mask = match &picture.mask {
            Some(mask) => {
                Some(self.store_as(job, attempt, mask, &format!("picture-{number}.mask.png")).await?)
            }
            None => None,
        };
        Ok(json!({
            "name": picture.name,
            "picture": key,
            "mask": mask,
            "caption": picture.caption,
            "size": picture.size,
            "upscaled": picture.upscaled,
            "warnings": picture.warnings,
        }))
    }
}
