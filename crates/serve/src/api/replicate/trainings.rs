//! Trainings.

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::catalog::{self, Version};
use super::jobs::{self, Answer, Asked};
use crate::api::body;
use crate::api::refusal::Refusal;
use crate::api::render::View;
use crate::api::state::{AppState, BASE};
use crate::api::submit;
use crate::api::tokens::Caller;
use crate::job::{Job, Kind, NewJob, Status};
use crate::worker::has_checkpoint;

/// `POST /models/{owner}/{name}/versions/{id}/trainings`.
pub async fn create(
    State(state): State<AppState>,
    Path((owner, name, id)): Path<(String, String, String)>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let view = View::of(&state, &headers, &query);
    let body = body::object(request).await?;
    let model = format!("{owner}/{name}");
    let version = catalog::version(&state, &id).await?.filter(|version| version.model == model);
    let version =
        version.ok_or_else(|| Refusal::not_found(format!("There is no version {id} of {model}")))?;
    begin(&state, &caller, version, &headers, body, &view).await
}

/// `POST /trainings`, with the version in the body, as older clients do.
pub async fn create_by_version(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let view = View::of(&state, &headers, &query);
    let body = body::object(request).await?;
    let version = jobs::version(&state, &body).await?;
    begin(&state, &caller, version, &headers, body, &view).await
}

async fn begin(
    state: &AppState,
    caller: &Caller,
    version: Version,
    headers: &HeaderMap,
    body: Map<String, Value>,
    view: &View,
) -> Answer {
    let destination = body::text(&body, "destination")?;
    let destination =
        destination.ok_or_else(|| Refusal::body("destination", "expected owner/name, found nothing"))?;
    if !catalog::is_model(&destination) {
        let problem = format!("{}, found {}", catalog::EXPECTED, body::short(&destination.as_str().into()));
        // Replicate says of a text that names no model that there is none.
        return Err(match destination.contains('/') {
            true => Refusal::body("destination", problem),
            false => Refusal::not_found(format!("destination: {problem}")),
        }
        .into());
    }
    if destination == BASE {
        return Err(
            Refusal::body("destination", format!("expected a model of your own, found {BASE}")).into()
        );
    }
    if !version.is_base {
        let problem = format!(
            "expected a version of {BASE}, found one of {}: trainings begin from the base model",
            version.model
        );
        return Err(Refusal::body("version", problem).into());
    }
    let job = jobs::new(state, caller, Kind::Training, version, headers, body, view)?;
    let job = submit::submit(state, NewJob { destination: Some(destination.clone()), ..job }).await?;
    // After the training, so that a refusal makes no model. The model is known by its versions too.
    if let Err(e) = catalog::put_model(state, &destination, Map::new()).await {
        tracing::warn!("the model {destination}: {e}");
    }
    jobs::created(state, job, headers, view).await
}

/// `POST /trainings/{id}/resume`: a new training with the same input, destination and webhook, which begins from the last checkpoint of one
/// that was canceled or has failed. Whatever body comes along is not read.
pub async fn resume(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    headers: HeaderMap,
) -> Answer {
    let view = View::of(&state, &headers, &query);
    let earlier = jobs::get(&state, Kind::Training, &id).await?;
    let from = with_checkpoint(&state, &earlier).await?;
    let job = NewJob {
        id: submit::new_id(),
        owner: caller.name.clone(),
        source: if view.is_page { "web" } else { "api" }.into(),
        cancel_after: jobs::cancel_after(&headers)?,
        ..earlier.made
    };
    // Before the training, which a worker may take at once. Retention removes what no training has.
    state.queue.set_resumes(&job.id, &from).await?;
    let job = submit::submit(&state, job).await?;
    jobs::created(&state, job, &headers, &view).await
}

/// The training whose checkpoint one goes on from that resumes this one: itself, or one that it resumes and got no further than.
async fn with_checkpoint(state: &AppState, training: &Job) -> Result<String, Refusal> {
    let id = training.id();
    let refused = |status, problem: &str| Err(Refusal::new(status, format!("The training {id} {problem}")));
    match training.status {
        Status::Succeeded => {
            return refused(StatusCode::CONFLICT, "has succeeded: there is nothing to resume");
        }
        Status::Starting | Status::Processing => {
            return refused(StatusCode::CONFLICT, "goes on: cancel it first");
        }
        Status::Failed | Status::Canceled => {}
    }
    let mut next = Some(id.to_owned());
    while let Some(id) = next {
        // A worker that is not done with it may still store one.
        if state.queue.is_leaving(&id).await? || has_checkpoint(&state.storage, &id).await? {
            return Ok(id);
        }
        next = state.queue.resumes(&id).await?;
    }
    refused(StatusCode::UNPROCESSABLE_ENTITY, "has no checkpoint: begin it anew")
}
