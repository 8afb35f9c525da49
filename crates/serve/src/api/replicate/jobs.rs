//! What predictions, trainings and preparations share.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use axum::{Json, Router};
use serde_json::{Map, Value};

use super::catalog::{self, Version};
use crate::api::input;
use crate::api::paging::{self, Cursor, Page};
use crate::api::refusal::{Problem, Refusal};
use crate::api::render::{self, View};
use crate::api::state::AppState;
use crate::api::submit::{self, new_job, wait};
use crate::api::tokens::Caller;
use crate::job::{Job, Kind, NewJob};
use crate::queue::Filter;

/// The query of a request.
pub type Asked = HashMap<String, String>;
/// What a handler answers.
pub type Answer = Result<Response, Problem>;

/// The longest wait. Python's client reads for 60 s and then asks again, which would make a second job.
const MAX_WAIT: u64 = 55;
/// Jobs of a page.
const PAGE: usize = 100;
/// The least and the most seconds of `Cancel-After`.
const CANCEL_AFTER: std::ops::RangeInclusive<u64> = 5..=7 * 24 * 3600;

/// A job out of a body.
///
/// # Errors
/// The input, or another field, is wrong.
pub fn new(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    version: Version,
    headers: &HeaderMap,
    mut body: Map<String, Value>,
    view: &View,
) -> Result<NewJob, Refusal> {
    let (webhook, webhook_events) = submit::webhook(&body)?;
    let cancel_after = cancel_after(headers)?;
    let input = input::of_body(kind, &mut body)?;
    let source = if view.is_page { "web" } else { "api" }.into();
    let mut job = new_job(state, caller, kind, input.fields);
    job.context.warnings = input.warnings;
    Ok(NewJob {
        model: version.model,
        version: version.id,
        webhook,
        webhook_events,
        source,
        cancel_after,
        ..job
    })
}

/// Makes a job, waits for it where the client prefers that, and answers 201.
pub async fn create(state: &AppState, job: NewJob, headers: &HeaderMap, view: &View) -> Answer {
    let job = submit::submit(state, job).await?;
    created(state, job, headers, view).await
}

/// The answer about a job that was made.
pub async fn created(state: &AppState, job: Job, headers: &HeaderMap, view: &View) -> Answer {
    let preferred = preferred_wait(headers);
    let mut body = None;
    let mut made = job;
    if let Some((seconds, _)) = &preferred {
        made = wait(state, made, Duration::from_secs(*seconds)).await;
        if made.status.is_over() {
            // The job is there; the storage may not be. So the answer is one of a job that goes on.
            let rendered = render::job(state, &made, view).await;
            body = rendered.inspect_err(|e| tracing::warn!("{e}")).ok();
        }
    }
    let body = body.unwrap_or_else(|| render::starting(&made, view));
    let mut answer = (StatusCode::CREATED, Json(body)).into_response();
    if let Some((_, applied)) = preferred.and_then(|(s, text)| Some((s, HeaderValue::from_str(&text).ok()?)))
    {
        answer.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(answer)
}

/// How many seconds a client prefers to wait, and that as the answer says it.
fn preferred_wait(headers: &HeaderMap) -> Option<(u64, String)> {
    let all = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences: Vec<&str> = all.flat_map(|value| value.split([',', ';'])).map(str::trim).collect();
    if preferences.contains(&"respond-async") {
        return None;
    }
    preferences.iter().find_map(|preference| {
        let rest = preference.strip_prefix("wait")?;
        match rest.trim().strip_prefix('=') {
            None if rest.is_empty() => Some((MAX_WAIT, "wait".into())),
            None => None,
            Some(seconds) => {
                let seconds = seconds.trim().trim_matches('"').parse::<u64>().ok()?;
                Some((seconds.min(MAX_WAIT), format!("wait={}", seconds.min(MAX_WAIT))))
            }
        }
    })
}

/// The seconds of `Cancel-After`: `90`, `30s`, `5m`, `1h30m45s`.
///
/// # Errors
/// The header says something else.
pub fn cancel_after(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(text) = headers.get("cancel-after") else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    let seconds = seconds(text).filter(|seconds| CANCEL_AFTER.contains(seconds));
    seconds.map(Some).ok_or_else(|| {
        Refusal::body(
            "Cancel-After",
            format!("expected 5 s to 7 days, such as 90s, 5m or 1h30m, found {text:?}"),
        )
    })
}

fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, String::new());
    for c in text.trim().chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    if number.is_empty() { Some(total) } else { total.checked_add(number.parse().ok()?) }
}

/// The job with an id.
///
/// # Errors
/// There is none, or the database does not answer.
pub async fn get(state: &AppState, kind: Kind, id: &str) -> Result<Job, Refusal> {
    let job = state.queue.get(kind, id).await?;
    job.ok_or_else(|| Refusal::not_found(format!("There is no {} {id}", kind.name())))
}

/// The routes of a job of a kind: `GET /{kind}/{id}`, and `POST /{kind}/{id}/cancel`, of which no body is read.
pub fn routes(kind: Kind) -> Router<AppState> {
    let path = format!("/{}/{{id}}", kind.names());
    let get = move |State(state): State<AppState>,
                    Path(id): Path<String>,
                    Query(query): Query<Asked>,
                    headers: HeaderMap| async move {
        let job = get(&state, kind, &id).await?;
        shown(&state, &job, &View::of(&state, &headers, &query)).await
    };
    let cancel = move |State(state): State<AppState>,
                       Path(id): Path<String>,
                       Query(query): Query<Asked>,
                       headers: HeaderMap| async move {
        cancel(&state, kind, &id, &View::of(&state, &headers, &query)).await
    };
    Router::new().route(&path, routing::get(get)).route(&format!("{path}/cancel"), routing::post(cancel))
}

/// `GET /{kind}`: a page of jobs.
pub fn lists(kind: Kind) -> MethodRouter<AppState> {
    routing::get(
        move |State(state): State<AppState>, Query(query): Query<Asked>, headers: HeaderMap| async move {
            let view = View::of(&state, &headers, &query);
            list(&state, kind, &query, view).await
        },
    )
}

/// The answer about a job.
async fn shown(state: &AppState, job: &Job, view: &View) -> Answer {
    Ok(Json(render::job(state, job, view).await?).into_response())
}

/// Cancels a job, and answers with the job as it is then.
async fn cancel(state: &AppState, kind: Kind, id: &str, view: &View) -> Answer {
    let job = state.queue.cancel(kind, id).await?;
    let job = job.ok_or_else(|| Refusal::not_found(format!("There is no {} {id}", kind.name())))?;
    shown(state, &job, view).await
}

/// A page of jobs.
async fn list(state: &AppState, kind: Kind, query: &Asked, view: View) -> Answer {
    let cursor = Cursor::of(query)?;
    let is_back = cursor.as_ref().is_some_and(|cursor| cursor.is_back);
    let filter = Filter {
        kind: Some(kind),
        model: query.get("model").cloned(),
        created_after: paging::time(query, "created_after")?,
        created_before: paging::time(query, "created_before")?,
        source: query.get("source").cloned(),
        ascending: is_ascending(query, &["created_at"])? != is_back,
        after: cursor.as_ref().map(|cursor| (cursor.time, cursor.id.clone())),
        limit: PAGE + 1,
    };
    let found = state.queue.list(&filter).await?;
    let page = Page::new(cursor.as_ref(), found, PAGE, |job| (job.created_at, job.id().to_owned()));
    let view = view.with_urls();
    let mut results = Vec::with_capacity(page.items.len());
    for job in &page.items {
        results.push(render::job(state, job, &view).await?);
    }
    Ok(Json(page.json(&format!("{}/v1/{}", view.base, kind.names()), query, results)).into_response())
}

/// Whether a list begins with the oldest: `sort_direction` or `direction`, and `sort_by` one of `fields`.
///
/// # Errors
/// A value is none of these.
pub fn is_ascending(query: &Asked, fields: &[&str]) -> Result<bool, Refusal> {
    if let Some(by) = query.get("sort_by").filter(|by| !fields.contains(&by.as_str())) {
        return Err(Refusal::body("sort_by", format!("expected {}, found {by:?}", fields.join(" or "))));
    }
    let direction = query.get("sort_direction").or(query.get("direction")).map(String::as_str);
    match direction {
        None | Some("desc") => Ok(false),
        Some("asc") => Ok(true),
        Some(other) => Err(Refusal::body("sort_direction", format!("expected asc or desc, found {other:?}"))),
    }
}

/// The version that a body names.
///
/// # Errors
/// There is none.
pub async fn version(state: &AppState, body: &Map<String, Value>) -> Result<Version, Refusal> {
    match crate::api::body::text(body, "version")? {
        Some(name) => catalog::named(state, &name).await,
        None => Err(Refusal::body("version", "expected the id of a version, found none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    /// Protects clients from a second job: no wait is longer than their patience.
    #[test]
    fn waits() {
        for (prefer, wait) in [
            ("wait", Some((55, "wait"))),
            ("wait=5", Some((5, "wait=5"))),
            ("wait=60", Some((55, "wait=55"))),
            ("wait = 7, x", Some((7, "wait=7"))),
            ("x; wait=1", Some((1, "wait=1"))),
            ("wait=no", None),
            ("waiting", None),
            ("respond-async", None),
            ("wait, respond-async", None),
        ] {
            let found = preferred_wait(&headers("prefer", prefer));
            assert_eq!(found.as_ref().map(|(s, text)| (*s, text.as_str())), wait, "{prefer}");
        }
    }

    /// Protects budgets: a job ends when its client said, or the client is told that it said nonsense.
    #[test]
    fn times_until_a_job_is_canceled() {
        for (text, seconds) in [
            ("90", Some(90)),
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("1h30m45s", Some(5445)),
            ("1h5", Some(3605)),
        ] {
            assert_eq!(cancel_after(&headers("cancel-after", text)).unwrap(), seconds, "{text}");
        }
        for wrong in ["", "4s", "5d", "m", "-5m", "999999999999999999999h", "99999999999999999h", "5 m"] {
            assert!(cancel_after(&headers("cancel-after", wrong)).is_err(), "{wrong}");
        }
    }
}
