//! Predictions and trainings of Cog's API.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::api::body;
use crate::api::events::{self, Names, cog_body};
use crate::api::input;
use crate::api::refusal::{CogRefusal, Refusal};
use crate::api::render::{self, View};
use crate::api::state::AppState;
use crate::api::submit::{self, CancelOnDrop, Submitted, new_job, submit_once, wait};
use crate::api::tokens::Caller;
use crate::job::{Job, Kind, NewJob, Status};

/// The most characters of an id that a client names.
const MAX_ID: usize = 128;
/// The field that says where the client wants files to be sent.
const PREFIX: &str = "output_file_prefix";
/// As long as the job takes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

type Answer = Result<Response, CogRefusal>;

/// What a request wants of a job that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// An answer when the job is over.
    Result,
    /// An answer at once.
    Id,
    /// The events.
    Events,
}

/// `POST /predictions`, `POST /trainings`.
pub async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let (kind, headers) = (kind_of(request.uri().path()), request.headers().clone());
    let wish = wish(kind, &headers)?;
    let body = body::object(request).await?;
    let id = body::text(&body, "id")?;
    let job = job(&state, &caller, kind, id, body)?;
    answer(&state, wish, &headers, job).await
}

/// `PUT /predictions/{id}`, `PUT /trainings/{id}`: makes the job if there is none with the id.
pub async fn create_with_id(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let (kind, headers) = (kind_of(request.uri().path()), request.headers().clone());
    let wish = wish(kind, &headers)?;
    let body = body::object(request).await?;
    if body::text(&body, "id")?.is_some_and(|in_body| in_body != id) {
        let problem = format!("{} ID must match the ID supplied in the URL", kind.name());
        return Err(Refusal::body("id", problem).into());
    }
    // A job that is there is found before its input is looked at: a client that has lost the answer asks again.
    if let Some(job) = state.queue.get(kind, &id).await? {
        return found(&state, wish, &headers, job).await;
    }
    let job = job(&state, &caller, kind, Some(id), body)?;
    answer(&state, wish, &headers, job).await
}

/// `GET /predictions/{id}`, `GET /trainings/{id}`: Cog lacks it, but for what is answered at once there is no other way to the result
/// without a webhook.
pub async fn get(State(state): State<AppState>, Path(id): Path<String>, request: Request) -> Answer {
    let kind = kind_of(request.uri().path());
    let job = state.queue.get(kind, &id).await?.ok_or_else(|| Refusal::not_found("Not Found"))?;
    let view = View::cog(&state, request.headers());
    let output = render::output(&state, &job, &view).await?;
    Ok(Json(cog_body(&job, output, &view)).into_response())
}

/// `POST /predictions/{id}/cancel`, `POST /trainings/{id}/cancel`.
pub async fn cancel(State(state): State<AppState>, Path(id): Path<String>, request: Request) -> Answer {
    let job = state.queue.cancel(kind_of(request.uri().path()), &id).await?;
    let status = match job {
        Some(job) if job.status == Status::Canceled => StatusCode::OK,
        _ => StatusCode::NOT_FOUND,
    };
    Ok((status, Json(json!({}))).into_response())
}

fn kind_of(path: &str) -> Kind {
    if path.starts_with("/trainings") { Kind::Training } else { Kind::Prediction }
}

fn wish(kind: Kind, headers: &HeaderMap) -> Result<Wish, Refusal> {
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    if text(header::ACCEPT).contains("text/event-stream") {
        return match kind {
            Kind::Prediction => Ok(Wish::Events),
            _ => Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "trainings have no event stream")),
        };
    }
    let prefer = text(header::HeaderName::from_static("prefer"));
    Ok(if prefer == "respond-async" { Wish::Id } else { Wish::Result })
}

fn job(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    id: Option<String>,
    mut body: Map<String, Value>,
) -> Result<NewJob, Refusal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(id) = &id {
        let is_id = !id.starts_with('.') && !id.is_empty() && id.len() <= MAX_ID && id.chars().all(is_plain);
        if !is_id {
            let problem = format!(
                "expected up to {MAX_ID} letters, digits and -_., found {}",
                body::short(&id.as_str().into())
            );
            return Err(Refusal::body("id", problem));
        }
    }
    let (webhook, webhook_events) = submit::webhook(&body)?;
    // An empty list of events is none of them in Cog's API.
    let is_told =
        body.get("webhook_events_filter").and_then(Value::as_array).is_none_or(|list| !list.is_empty());
    let webhook = webhook.filter(|_| is_told);
    let output_file_prefix = body::text(&body, PREFIX)?;
    if let Some(prefix) = &output_file_prefix {
        let checked = state.inputs.client().check_url(prefix);
        checked.map_err(|problem| Refusal::body(PREFIX, problem))?;
    }
    let input = input::of_body(kind, &mut body)?;
    let mut job = new_job(state, caller, kind, input.fields);
    job.context.warnings = input.warnings;
    job.id = id.unwrap_or(job.id);
    (job.context.upload_url, job.context.output_file_prefix) =
        (state.settings.upload_url.clone(), output_file_prefix);
    Ok(NewJob { webhook, webhook_events, ..job })
}

/// Makes the job, and answers as the request wishes.
async fn answer(state: &AppState, wish: Wish, headers: &HeaderMap, job: NewJob) -> Answer {
    let Submitted { job, is_new } = submit_once(state, job).await?;
    if !is_new {
        return found(state, wish, headers, job).await;
    }
    let view = View::cog(state, headers);
    match wish {
        Wish::Id => {
            Ok((StatusCode::ACCEPTED, Json(json!({ "id": job.id(), "status": "starting" }))).into_response())
        }
        Wish::Events => {
            let guard = CancelOnDrop::new(state, &job);
            Ok(events::follow(state, job, view, Names::Cog, Some(guard)))
        }
        Wish::Result => {
            let guard = CancelOnDrop::new(state, &job);
            let job = wait(state, job, FOR_EVER).await;
            if !job.status.is_over() {
                return Err(
                    Refusal::unavailable("The service is about to end, and the job was canceled").into()
                );
            }
            guard.keep();
            over(state, &job, &view).await
        }
    }
}

/// The answer of a request whose job is there already.
async fn found(state: &AppState, wish: Wish, headers: &HeaderMap, job: Job) -> Answer {
    let view = View::cog(state, headers);
    match wish {
        Wish::Events => Ok(events::follow(state, job, view, Names::Cog, None)),
        _ if job.status.is_over() => over(state, &job, &view).await,
        _ => Ok((StatusCode::ACCEPTED, Json(cog_body(&job, Value::Null, &view))).into_response()),
    }
}

/// A job that is over: 200, but 422 where the input was found to be wrong while the job ran.
async fn over(state: &AppState, job: &Job, view: &View) -> Answer {
    let output = render::output(state, job, view).await?;
    let body = cog_body(job, output, view);
    if input::wrong_field(job).is_none() {
        return Ok(Json(body).into_response());
    }
    let mut short = Map::new();
    for name in ["id", "error", "logs", "status", "metrics"] {
        short.insert(name.into(), body[name].clone());
    }
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(Value::Object(short))).into_response())
}
