//! HTTP.
//!
//! ```text
//! cog/          Cog's API, at the root
//! replicate/    Replicate's API, under /v1 and /v1/v1
//! events.rs     a job's events while it goes on
//! openai/, a1111/   other APIs for pictures; pictures.rs, masks.rs, trained.rs: what both need
//! files.rs, upload.rs   uploads and downloads
//! docs.rs       /docs, and what /v1 itself answers
//! health.rs     /health-check and /metrics
//! submit.rs     new jobs, and waiting for them: what all APIs do alike
//! input.rs      the input of a job, and what is left out of it
//! render.rs     jobs as JSON; paging.rs: lists of them
//! refusal.rs    what is refused, in the form of each API
//! auth.rs, tokens.rs, limits.rs   who may do what, and how often
//! hosts.rs      the names that a service without tokens answers to
//! http.rs, trace.rs   request ids, the log, other origins, traces
//! state.rs      what every handler has; metrics.rs: its numbers; body.rs: bodies of requests
//! ```

mod a1111;
pub mod auth;
pub mod body;
mod cog;
mod docs;
pub mod events;
mod files;
mod health;
mod hosts;
mod http;
pub mod input;
pub mod limits;
mod masks;
pub mod metrics;
mod openai;
mod page;
mod paging;
mod pictures;
pub mod refusal;
pub mod render;
pub mod replicate;
pub mod state;
pub mod submit;
#[cfg(test)]
mod tests;
pub mod tokens;
mod trace;
mod trained;
mod upload;

pub use cog::openapi::document;
pub use state::AppState;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;

use self::refusal::{Dialect, Refusal};
use crate::error::Result;

/// All routes of the service.
///
/// # Errors
/// An origin in the settings is none.
pub fn router(state: AppState) -> Result<Router> {
    let in_memory = from_fn_with_state(state.clone(), body::bounded);
    let v1 = replicate::routes().merge(openai::routes()).route_layer(in_memory.clone());
    let v1 = v1.merge(files::routes());
    let guarded = Router::new()
        .merge(cog::routes())
        .merge(a1111::routes())
        .route_layer(in_memory)
        .nest("/v1", v1.clone())
        // Clients differ in whether their base URL has `/v1`.
        .nest("/v1/v1", v1)
        .merge(docs::routes())
        .route("/events/{kind}/{id}", get(events::events))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(not_allowed)
        .route_layer(from_fn_with_state(state.clone(), auth::check));
    let open = Router::new()
        .merge(page::routes())
        .merge(docs::public_routes())
        .merge(files::public_routes())
        .route("/health-check", get(health::health_check));
    let mut all = guarded.merge(open).fallback(not_found);
    all = all.layer(from_fn(http::readable_path));
    all = all.layer(from_fn_with_state(state.clone(), http::same_origin));
    if let Some(cors) = http::cors(&state.settings.cors)? {
        all = all.layer(cors);
    }
    Ok(all.layer(from_fn_with_state(state.clone(), http::observe)).with_state(state))
}

async fn not_found(request: Request) -> Response {
    Refusal::not_found("Not Found").in_dialect(Dialect::of_path(request.uri().path()))
}

async fn not_allowed(request: Request) -> Response {
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    refusal.in_dialect(Dialect::of_path(request.uri().path()))
}
