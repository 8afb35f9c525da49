//! Cog's API, at the root: predictions and trainings that a request waits for.
//!
//! ```text
//! openapi.rs   the document of the API
//! jobs.rs      predictions and trainings
//! ```

pub mod jobs;
pub mod openapi;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, http};
use serde_json::{Map, Value, json};

use super::auth::is_browser;
use super::state::{AppState, COG_VERSION};
use crate::api::page;

/// The routes of the API.
pub fn routes() -> Router<AppState> {
    let mut router = Router::new()
        .route("/", get(root))
        .route("/openapi.json", get(document))
        .route("/shutdown", post(shutdown));
    for names in ["predictions", "trainings"] {
        router = router
            .route(&format!("/{names}"), post(jobs::create))
            .route(&format!("/{names}/{{id}}"), put(jobs::create_with_id).get(jobs::get))
            .route(&format!("/{names}/{{id}}/cancel"), post(jobs::cancel));
    }
    router
}

async fn root(State(state): State<AppState>, headers: HeaderMap) -> Response {
    if is_browser(&headers) {
        return page::index(&*state.engine);
    }
    let mut body = Map::new();
    body.insert("cog_version".into(), COG_VERSION.into());
    for (name, path) in [
        ("docs", "/docs"),
        ("openapi", "/openapi.json"),
        ("shutdown", "/shutdown"),
        ("healthcheck", "/health-check"),
    ] {
        body.insert(format!("{name}_url"), path.into());
    }
    for (names, id) in [("predictions", "prediction_id"), ("trainings", "training_id")] {
        body.insert(format!("{names}_url"), format!("/{names}").into());
        body.insert(format!("{names}_idempotent_url"), format!("/{names}/{{{id}}}").into());
        body.insert(format!("{names}_cancel_url"), format!("/{names}/{{{id}}}/cancel").into());
    }
    Json(Value::Object(body)).into_response()
}

async fn document(State(state): State<AppState>) -> Json<Value> {
    Json(state.document.clone())
}

async fn shutdown(State(state): State<AppState>) -> (http::StatusCode, Json<Value>) {
    tracing::info!("a client asks the service to end");
    state.drain.send_replace(true);
    (http::StatusCode::OK, Json(json!({})))
}
