//! Lists that clients ask for: the model, samplers, trained versions, options. The lists of things that the service lacks, such as
//! upscalers, are empty.

use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::Answer;
use super::samplers::SAMPLERS;
use crate::api::refusal::Refusal;
use crate::api::state::AppState;
use crate::api::{body, trained};

/// Adds what is the same for all.
pub(super) fn fixed(router: Router<AppState>) -> Router<AppState> {
    let none =
        json!({ "name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 1 });
    let gets = [
        ("sd-vae", json!([])),
        ("upscalers", json!([none])),
        ("latent-upscale-modes", json!([])),
        ("hypernetworks", json!([])),
        ("face-restorers", json!([])),
        ("prompt-styles", json!([])),
        ("embeddings", json!({ "loaded": {}, "skipped": {} })),
        ("scripts", json!({ "txt2img": [], "img2img": [] })),
    ];
    let answer = |value: Value| -> MethodRouter<AppState> { get(move || async move { Json(value) }) };
    let router = gets
        .into_iter()
        .fold(router, |router, (name, value)| router.route(&format!("/sdapi/v1/{name}"), answer(value)));
    let refresh: MethodRouter<AppState> = post(|| async { Json(json!({})) });
    // The service's one model stays open.
    ["refresh-checkpoints", "refresh-vae", "refresh-loras", "unload-checkpoint", "reload-checkpoint"]
        .into_iter()
        .fold(router, |router, name| router.route(&format!("/sdapi/v1/{name}"), refresh.clone()))
}

pub(super) async fn models(State(state): State<AppState>) -> Answer {
    let model = state.engine.model();
    let model = json!({ "title": model, "model_name": model, "hash": null, "sha256": null, "filename": model, "config": null });
    Ok(Json(json!([model])).into_response())
}

pub(super) async fn options(State(state): State<AppState>) -> Answer {
    // `forge_preset` would send SillyTavern another way.
    let options = json!({
        "sd_model_checkpoint": state.engine.model(),
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
        "enable_pnginfo": true,
    });
    Ok(Json(options).into_response())
}

/// Takes options: those of a web UI mean nothing here, and another model is refused.
pub(super) async fn set_options(State(state): State<AppState>, request: Request) -> Answer {
    let options = body::object(request).await?;
    check_model(&state, &Map::from_iter([("override_settings".to_string(), Value::Object(options))]))?;
    Ok(Json(Value::Null).into_response())
}

/// Refuses a request for a model that the service does not have.
pub(super) fn check_model(state: &AppState, fields: &Map<String, Value>) -> Result<(), Refusal> {
    let wanted = fields.get("override_settings").and_then(|settings| settings.get("sd_model_checkpoint"));
    let (wanted, model) = (wanted.and_then(Value::as_str).unwrap_or_default(), state.engine.model());
    if wanted.is_empty() || wanted == model {
        return Ok(());
    }
    Err(Refusal::body("sd_model_checkpoint", format!("expected {model}, found {wanted:?}")))
}

pub(super) async fn samplers() -> Answer {
    let samplers: Vec<Value> = SAMPLERS
        .iter()
        .map(|sampler| json!({ "name": sampler.theirs, "aliases": sampler.aliases, "options": {} }))
        .collect();
    Ok(Json(samplers).into_response())
}

pub(super) async fn schedulers() -> Answer {
    let schedulers = [("automatic", "Automatic"), ("karras", "Karras")].map(|(name, label)| {
        json!({ "name": name, "label": label, "aliases": null, "default_rho": -1.0, "need_inner_model": false })
    });
    Ok(Json(schedulers).into_response())
}

/// Trained models, each by its newest version. A name without its owner where only one has it.
pub(super) async fn loras(State(state): State<AppState>) -> Answer {
    let mut versions = trained::versions(&state).await?;
    let mut seen = std::collections::HashSet::new();
    versions.retain(|version| seen.insert(version.model.clone()));
    let shown = versions.iter().map(|version| {
        let short = version.short_name();
        let is_only = versions.iter().filter(|other| other.short_name() == short).count() == 1;
        let name = if is_only { short } else { &version.model };
        json!({ "name": name, "alias": version.model, "path": version.weights, "metadata": {} })
    });
    Ok(Json(shown.collect::<Vec<Value>>()).into_response())
}
