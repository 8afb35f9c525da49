//! Predictions.

use axum::Extension;
use axum::extract::{Path, Query, Request, State};

use super::catalog;
use super::jobs::{self, Answer, Asked};
use crate::api::body;
use crate::api::refusal::Refusal;
use crate::api::render::View;
use crate::api::state::AppState;
use crate::api::tokens::Caller;
use crate::job::Kind;

/// `POST /predictions`.
pub async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let view = View::of(&state, &headers, &query);
    let body = body::object(request).await?;
    let version = jobs::version(&state, &body).await?;
    let job = jobs::new(&state, &caller, Kind::Prediction, version, &headers, body, &view)?;
    jobs::create(&state, job, &headers, &view).await
}

/// `POST /models/{owner}/{name}/predictions`: with the model's newest version.
pub async fn create_of_model(
    State(state): State<AppState>,
    Path((owner, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let view = View::of(&state, &headers, &query);
    let body = body::object(request).await?;
    let model = catalog::model(&state, &format!("{owner}/{name}")).await?.id;
    let version = catalog::latest(&state, &model).await?;
    let version =
        version.ok_or_else(|| Refusal::not_found(format!("The model {model} has no version yet")))?;
    let job = jobs::new(&state, &caller, Kind::Prediction, version, &headers, body, &view)?;
    jobs::create(&state, job, &headers, &view).await
}
