//! What operators ask: whether the service is well, and its numbers.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::render::time;
use super::state::{AppState, COG_VERSION};
use crate::job::Kind;

/// `GET /health-check`: always 200, as Cog's.
pub async fn health_check(State(state): State<AppState>) -> Json<Value> {
    let setup = state.setup.borrow().clone();
    let counts = state.queue.counts().await;
    let settings = &state.settings;
    let (status, problem) = match (&setup.error, setup.completed_at, &counts) {
        (Some(_), _, _) => ("SETUP_FAILED", None),
        (None, None, _) => ("STARTING", None),
        (None, Some(_), Err(e)) => {
            tracing::error!("{e}");
            ("UNHEALTHY", Some("the service's database does not answer"))
        }
        (None, Some(_), Ok(counts)) => {
            let predictions = counts.iter().find(|(kind, _)| *kind == Kind::Prediction);
            let (queued, running) = predictions.map_or((0, 0), |(_, counts)| (counts.queued, counts.running));
            let is_busy = state.is_draining()
                || queued >= settings.max_queue
                || (settings.workers > 0 && running >= settings.workers);
            (if is_busy { "BUSY" } else { "READY" }, None)
        }
    };
    let setup_status = match (&setup.error, setup.completed_at) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "succeeded",
        (None, None) => "starting",
    };
    let mut body = json!({
        "status": status,
        "setup": {
            "started_at": time(setup.started_at),
            "completed_at": setup.completed_at.map(time),
            "status": setup_status,
            "logs": setup.error.unwrap_or_default(),
        },
        // Clients of Cog read `coglet`, which is text.
        "version": { "calotype": env!("CARGO_PKG_VERSION"), "coglet": COG_VERSION },
    });
    if let Some(problem) = problem {
        body["user_healthcheck_error"] = problem.into();
    }
    Json(body)
}

/// `GET /metrics`: 200 although the database is away, which is when the numbers are needed.
pub async fn metrics(State(state): State<AppState>) -> Response {
    let counts = state.queue.counts().await.inspect_err(|e| tracing::error!("{e}")).ok();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.text(counts.as_ref().map(|counts| counts.as_slice())))
        .into_response()
}
