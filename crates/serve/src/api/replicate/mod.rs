//! Replicate's API, under `/v1`.
//!
//! ```text
//! jobs.rs         what predictions, trainings and preparations share: creation, answers, cancels, lists, waiting
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
use crate::job::Kind;

/// The routes of the API, without the prefix.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/predictions", jobs::lists(Kind::Prediction).post(predictions::create))
        .merge(jobs::routes(Kind::Prediction))
        .route("/trainings", jobs::lists(Kind::Training).post(trainings::create_by_version))
        .merge(jobs::routes(Kind::Training))
        .route("/trainings/{id}/resume", post(trainings::resume))
        .route("/preparations", post(preparations::create))
        .merge(jobs::routes(Kind::Preparation))
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
