//! `GET /docs`: what there is, as text, for whoever begins; and `GET /v1`, which says where that is.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::state::AppState;
use super::submit::url_base;

/// All endpoints, and a request of each API.
const DOCS: &str = include_str!("docs.txt");

/// `/docs`, which has no secrets: it answers without a token, as the page does.
pub fn public_routes() -> Router<AppState> {
    Router::new().route("/docs", get(docs))
}

/// `/v1` and `/v1/v1` themselves.
pub fn routes() -> Router<AppState> {
    let paths = ["/v1", "/v1/", "/v1/v1", "/v1/v1/"];
    paths.into_iter().fold(Router::new(), |router, path| router.route(path, get(index)))
}

async fn docs(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let (note, token) = match state.tokens.are_asked() {
        true => ("Each request has a token, which the operator gives.", " -H 'authorization: Bearer TOKEN'"),
        false => ("No token is asked for.", ""),
    };
    let text = DOCS.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{note}", note);
    let text = text.replace("{token}", token).replace("{base}", &url_base(&state, &headers));
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text).into_response()
}

async fn index(State(state): State<AppState>, headers: HeaderMap) -> Json<Value> {
    let base = url_base(&state, &headers);
    let mut index =
        json!({ "docs_url": format!("{base}/docs"), "openapi_url": format!("{base}/openapi.json") });
    for name in ["predictions", "trainings", "models", "files"] {
        index[format!("{name}_url")] = format!("{base}/v1/{name}").into();
    }
    Json(index)
}
