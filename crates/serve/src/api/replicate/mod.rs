//! Replicate's API, under `/v1`.
//!
//! ```text
//! jobs.rs         what predictions and trainings share: creation, lists, waiting
//! predictions.rs, trainings.rs, preparations.rs
//! catalog.rs      models and versions in the database
//! models.rs, versions.rs   the same as JSON
//! account.rs      what is the same for everybody: account, hardware, collections, the secret of webhooks
//! ```

mod account;
mod catalog;
mod jobs;
mod models;
mod predictions;
mod preparations;
mod trainings;
mod versions;

pub use catalog::set_up;

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get, post};

use super::refusal::{Problem, Refusal};
use super::state::AppState;

/// The routes of the API, without the prefix.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/predictions", post(predictions::create).get(predictions::list))
        .route("/predictions/{id}", get(predictions::get))
        .route("/predictions/{id}/cancel", post(predictions::cancel))
        .route("/trainings", post(trainings::create_by_version).get(trainings::list))
        .route("/trainings/{id}", get(trainings::get))
        .route("/trainings/{id}/cancel", post(trainings::cancel))
        .route("/trainings/{id}/resume", post(trainings::resume))
        .route("/preparations", post(preparations::create))
        .route("/preparations/{id}", get(preparations::get))
        .route("/preparations/{id}/cancel", post(preparations::cancel))
        // QUERY is no method that the router knows.
        .route("/models", any(models::collection))
        .route("/models/{name}", get(models::openai))
        .route("/models/{owner}/{name}", get(models::get).patch(models::change).delete(models::delete))
        .route("/models/{owner}/{name}/readme", get(models::readme))
        .route("/models/{owner}/{name}/examples", get(models::examples))
        .route("/models/{owner}/{name}/predictions", post(predictions::create_of_model))
        .route("/models/{owner}/{name}/versions", get(versions::list))
        .route("/models/{owner}/{name}/versions/{id}", get(versions::get).delete(versions::delete))
        .route("/models/{owner}/{name}/versions/{id}/trainings", post(trainings::create))
        .route("/search", get(models::search))
        .route("/account", get(account::account))
        .route("/hardware", get(account::hardware))
        .route("/collections", get(account::collections))
        .route("/collections/{slug}", get(account::collection))
        .route("/webhooks/default/secret", get(account::secret))
        .route("/deployments", any(no_deployments))
        .route("/deployments/{*path}", any(no_deployments))
}

async fn no_deployments(_: Request) -> Problem {
    Problem(Refusal::not_found("This service has no deployments; make predictions with a model or a version"))
}
