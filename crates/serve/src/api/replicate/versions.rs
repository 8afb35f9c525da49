//! Versions of models.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::catalog::{self, Version};
use super::jobs::{Answer, Asked};
use crate::api::paging::{Cursor, Page};
use crate::api::refusal::Refusal;
use crate::api::render::time;
use crate::api::state::{AppState, COG_VERSION};
use crate::api::submit::url_base;

/// Versions of a page.
const PAGE: usize = 25;

/// A version as JSON.
pub fn json(state: &AppState, version: &Version) -> Value {
    json!({
        "id": version.id,
        "created_at": time(version.created_at),
        "cog_version": COG_VERSION,
        "openapi_schema": state.document,
    })
}

/// `GET /models/{owner}/{name}/versions`.
pub async fn list(
    State(state): State<AppState>,
    Path((owner, name)): Path<(String, String)>,
    Query(query): Query<Asked>,
    headers: HeaderMap,
) -> Answer {
    let model = catalog::model(&state, &format!("{owner}/{name}")).await?.id;
    let cursor = Cursor::of(&query)?;
    let versions = catalog::versions(&state, &model).await?;
    let place = |version: &Version| (version.created_at, version.id.clone());
    let page = Page::of_all(cursor.as_ref(), versions, PAGE, place);
    let results = page.items.iter().map(|version| json(&state, version)).collect();
    let url = format!("{}/v1/models/{model}/versions", url_base(&state, &headers));
    Ok(Json(page.json(&url, &query, results)).into_response())
}

/// `GET /models/{owner}/{name}/versions/{id}`.
pub async fn get(State(state): State<AppState>, Path(path): Path<(String, String, String)>) -> Answer {
    let version = find(&state, path).await?;
    Ok(Json(json(&state, &version)).into_response())
}

/// `DELETE /models/{owner}/{name}/versions/{id}`. The weights go with the next clean-up.
pub async fn delete(State(state): State<AppState>, Path(path): Path<(String, String, String)>) -> Answer {
    let version = find(&state, path).await?;
    if version.is_base {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "The base model's version cannot be deleted").into());
    }
    state.queue.delete_record("version", &version.id).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn find(state: &AppState, (owner, name, id): (String, String, String)) -> Result<Version, Refusal> {
    let model = format!("{owner}/{name}");
    let version = catalog::version(state, &id).await?.filter(|version| version.model == model);
    version.ok_or_else(|| Refusal::not_found(format!("There is no version {id} of {model}")))
}
