//! Pictures for APIs that answer when all of them are there: OpenAI's and A1111's. Each picture is a prediction of its own, so that
//! its seed alone makes it again. A client that hangs up cancels what it waits for.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::state::AppState;
use super::submit::{self, CancelOnDrop};
use super::tokens::Caller;
use super::{files, input, upload};
use crate::job::{Job, Status};
use crate::worker::FLAGGED;

/// How long a prediction is waited for: clients give up long before.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A finished picture.
pub(super) struct Picture {
    /// The storage key.
    pub key: String,
    /// The prediction.
    pub job: Job,
}

/// A prediction failed.
pub(super) fn failed(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// A refusal with another API's names of fields.
pub(super) fn renamed(mut refusal: Refusal, theirs: impl Fn(&str) -> &str) -> Refusal {
    if refusal.problems.is_empty() {
        return refusal;
    }
    for problem in &mut refusal.problems {
        problem.field = theirs(&problem.field).to_string();
    }
    Refusal { status: refusal.status, retry_after: refusal.retry_after, ..Refusal::fields(refusal.problems) }
}

/// Predictions that a request waits for. They are canceled when the request goes away before them.
pub(super) struct Waiting {
    state: AppState,
    jobs: Vec<(Job, CancelOnDrop)>,
}

impl Waiting {
    /// Makes a prediction for each input, whose log begins with `warnings`. If one is refused, those before are canceled.
    pub(super) async fn submit(
        state: &AppState,
        caller: &Caller,
        inputs: Vec<Map<String, Value>>,
        warnings: &[String],
    ) -> Result<Waiting, Refusal> {
        let mut jobs = Vec::new();
        for input in inputs {
            let mut job = submit::prediction(state, caller, input);
            job.context.warnings = warnings.to_vec();
            let job = submit::submit(state, job).await?;
            let guard = CancelOnDrop::new(state, &job);
            jobs.push((job, guard));
        }
        Ok(Waiting { state: state.clone(), jobs })
    }

    /// The predictions' ids.
    pub(super) fn ids(&self) -> Vec<String> {
        self.jobs.iter().map(|(job, _)| job.id().to_string()).collect()
    }

    /// Waits until all predictions are over, and returns their pictures in order: none for a prediction that somebody canceled.
    ///
    /// # Errors
    /// A prediction failed, or its input was found to be wrong while it ran.
    pub(super) async fn pictures(self) -> Result<Vec<Option<Picture>>, Refusal> {
        let mut pictures = Vec::new();
        for (job, guard) in self.jobs {
            pictures.push(finished(&self.state, job, guard).await?);
        }
        Ok(pictures)
    }

    /// The predictions, each with what cancels it when it is dropped.
    pub(super) fn into_jobs(self) -> Vec<(Job, CancelOnDrop)> {
        self.jobs
    }
}

/// Waits until a prediction is over, and returns its picture. `None`: somebody canceled the prediction.
///
/// # Errors
/// The prediction failed, or its input was found to be wrong while it ran.
pub(super) async fn finished(
    state: &AppState,
    job: Job,
    guard: CancelOnDrop,
) -> Result<Option<Picture>, Refusal> {
    let job = submit::wait(state, job, PATIENCE).await;
    if !job.status.is_over() {
        // The client has no id to ask for it again, so the prediction is canceled.
        return Err(Refusal::unavailable("The service is about to end"));
    }
    guard.keep();
    Picture::of(job)
}

impl Picture {
    /// The picture of a prediction that is over. `None`: somebody canceled the prediction.
    fn of(job: Job) -> Result<Option<Picture>, Refusal> {
        let key = job.output.as_ref().and_then(|output| output.get(0)?.as_str()).map(String::from);
        match (job.status, key) {
            (Status::Succeeded, Some(key)) => Ok(Some(Picture { key, job })),
            (Status::Canceled, _) => Ok(None),
            _ => Err(Picture::failure(&job)),
        }
    }

    /// Why a prediction has no picture.
    fn failure(job: &Job) -> Refusal {
        match (input::wrong_field(job), job.error.as_deref()) {
            (Some((field, problem)), _) => Refusal::input(field, problem),
            // No failure of the service: the prompt's, or the seed's.
            (None, Some(FLAGGED)) => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, FLAGGED),
            (None, error) => failed(error.unwrap_or("the prediction failed")),
        }
    }
}

/// The bytes of a picture, as PNG.
pub(super) async fn read(state: &AppState, picture: &Picture) -> Result<Bytes, Refusal> {
    let bytes = state.storage.read(&picture.key).await?;
    bytes.ok_or_else(|| failed(format!("{}: deleted meanwhile", picture.key)))
}

/// The newest preview of a prediction, as PNG. `None`: there is none yet, or a newer one replaces it just now.
pub(super) async fn preview(state: &AppState, job: &Job) -> crate::error::Result<Option<Bytes>> {
    let previews = job.progress.as_ref().and_then(|progress| progress.get("previews")?.as_array());
    match previews.and_then(|previews| previews.last()?.get("key")?.as_str()) {
        Some(key) => state.storage.read(key).await,
        None => Ok(None),
    }
}

/// Stores a picture that came within a request. Returns its URL for an input, valid on whatever host a worker runs.
pub(super) async fn store(
    state: &AppState,
    caller: &Caller,
    field: &str,
    png: &[u8],
) -> Result<String, Refusal> {
    let upload =
        upload::of_bytes(&format!("{field}.png"), "image/png", png, &state.settings.data.join("tmp")).await?;
    let file = files::keep(state, &caller.name, upload).await?;
    Ok(format!("/v1/files/{}", file.id))
}
