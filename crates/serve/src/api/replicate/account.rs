//! What is the same for everybody: the account, the hardware, collections, the secret of webhooks.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::jobs::Answer;
use super::models;
use crate::api::refusal::Refusal;
use crate::api::state::AppState;
use crate::api::submit::url_base;
use crate::api::tokens::Caller;
use crate::webhooks;

/// The only collection: what this service does.
const COLLECTION: &str = "text-to-image";

/// `GET /account`.
pub async fn account(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(
        json!({ "type": "user", "username": caller.name, "name": caller.name, "github_url": null, "avatar_url": null }),
    )
}

/// `GET /hardware`: one kind, with its price where the operator has set one.
pub async fn hardware(State(state): State<AppState>) -> Json<Value> {
    let mut one = json!({ "name": "This service's machines", "sku": "calotype" });
    if state.settings.price_per_second > 0.0 {
        one["price_per_second"] = state.settings.price_per_second.into();
    }
    Json(json!([one]))
}

/// `GET /collections`.
pub async fn collections() -> Json<Value> {
    Json(json!({ "previous": null, "next": null, "results": [about()] }))
}

/// `GET /collections/{slug}`.
pub async fn collection(
    State(state): State<AppState>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Answer {
    if slug != COLLECTION {
        return Err(Refusal::not_found(format!("There is no collection {slug}")).into());
    }
    let mut collection = about();
    collection["models"] = json!([models::base(&state, &url_base(&state, &headers)).await?]);
    Ok(Json(collection).into_response())
}

fn about() -> Value {
    json!({ "name": "Text to image", "slug": COLLECTION, "description": "Models that make pictures from text",
        "full_description": null })
}

/// `GET /webhooks/default/secret`.
pub async fn secret(State(state): State<AppState>) -> Answer {
    Ok(Json(json!({ "key": webhooks::secret(&state.queue).await? })).into_response())
}
