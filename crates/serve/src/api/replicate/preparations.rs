//! Preparations: what a training does with its pictures before it trains, for people to look at and to correct before anything is spent.
//! Replicate has none; ours have the form of its predictions.

use axum::Extension;
use axum::extract::{Query, Request, State};

use super::catalog;
use super::jobs::{self, Answer, Asked};
use crate::api::body;
use crate::api::render::View;
use crate::api::state::{AppState, BASE};
use crate::api::tokens::Caller;
use crate::job::Kind;

/// `POST /preparations`: of the training that has this input.
pub async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let view = View::of(&state, &headers, &query);
    let body = body::object(request).await?;
    let version = catalog::named(&state, BASE).await?;
    let job = jobs::new(&state, &caller, Kind::Preparation, version, &headers, body, &view)?;
    jobs::create(&state, job, &headers, &view).await
}
