//! The API of AUTOMATIC1111's web UI, `/sdapi/v1/…`, as far as clients without a browser use it.
//!
//! Where the web UI has no seed it draws one here, so that `info` says what made each picture. `mask_blur`, `inpaint_full_res`,
//! `inpainting_fill`, `resize_mode` and the web UI's own options are accepted and have no effect. Fields for functions that the service
//! lacks, such as `enable_hr`, are refused when they are set.
//!
//! ```text
//! request.rs   the fields of a request → the input of a prediction
//! samplers.rs  their names of samplers and ours
//! lora.rs      <lora:NAME:WEIGHT> → trained versions
//! live.rs      progress and interrupt
//! lists.rs     what there is: models, samplers, options
//! ```

mod lists;
mod live;
mod lora;
mod request;
mod samplers;
#[cfg(test)]
mod tests;

use axum::extract::{Request as AnyRequest, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use self::live::Live;
use self::request::Request;
use super::pictures::{self, Waiting};
use super::refusal::Refusal;
use super::state::AppState;
use super::tokens::Caller;
use super::{body, masks};
use crate::inputs::data_uri;

/// All of `/sdapi/v1`.
pub(super) fn routes() -> Router<AppState> {
    let router = Router::new()
        .route("/sdapi/v1/txt2img", post(txt2img))
        .route("/sdapi/v1/img2img", post(img2img))
        .route("/sdapi/v1/progress", get(live::progress))
        .route("/sdapi/v1/interrupt", post(live::interrupt))
        .route("/sdapi/v1/skip", post(live::interrupt))
        .route("/sdapi/v1/options", get(lists::options).post(lists::set_options))
        .route("/sdapi/v1/sd-models", get(lists::models))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/loras", get(lists::loras));
    lists::fixed(router).layer(Extension(Live::default()))
}

/// A refusal as the web UI has errors.
struct Problem(Refusal);

impl<E: Into<Refusal>> From<E> for Problem {
    fn from(e: E) -> Problem {
        Problem(e.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let refusal = pictures::renamed(self.0, request::theirs);
        let kind = if refusal.status.is_server_error() { "RuntimeError" } else { "HTTPException" };
        let body = json!({ "error": kind, "detail": refusal.message, "body": "", "errors": refusal.message });
        let mut answer = (refusal.status, Json(body)).into_response();
        if let Some(seconds) = refusal.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }
}

type Answer = Result<Response, Problem>;

async fn txt2img(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(live): Extension<Live>,
    body: AnyRequest,
) -> Answer {
    let fields = body::object(body).await?;
    let request = Request::of_fields(&fields, false)?;
    generate(&state, &caller, &live, request, fields).await
}

async fn img2img(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Extension(live): Extension<Live>,
    body: AnyRequest,
) -> Answer {
    let mut fields = body::object(body).await?;
    let mut request = Request::of_fields(&fields, true)?;
    let image = match fields.get("init_images").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(image)]) => image.clone(),
        Some([_, _, ..]) => return Err(Refusal::body("init_images", "one picture is taken at a time").into()),
        _ => return Err(Refusal::body("init_images", "expected one picture as base64").into()),
    };
    request.set("image", picture(&state, &caller, "init_images", &image, false).await?);
    if let Some(mask) = fields.get("mask").and_then(Value::as_str).filter(|mask| !mask.is_empty()) {
        let is_inverted = fields.get("inpainting_mask_invert").is_some_and(|value| !request::is_empty(value));
        request.set("mask", picture(&state, &caller, "mask", mask, is_inverted).await?);
    }
    // The answer repeats the request; the pictures would be most of it.
    fields.remove("init_images");
    fields.remove("mask");
    generate(&state, &caller, &live, request, fields).await
}

/// A picture within a request, as base64 or a data URI, as the value of an input's field.
async fn picture(
    state: &AppState,
    caller: &Caller,
    field: &str,
    text: &str,
    is_inverted: bool,
) -> Result<Value, Refusal> {
    let bytes = match data_uri::is_data_uri(text) {
        true => data_uri::read(text, body::MAX_JSON as u64).map(|data| data.bytes),
        false => data_uri::decode(text.as_bytes().to_vec()),
    };
    let bytes = bytes.map_err(|problem| Refusal::body(field, problem))?;
    let decoding = tokio::task::spawn_blocking(move || {
        let picture = masks::decode(&bytes)?;
        masks::png(&if is_inverted { masks::inverted(&picture).into() } else { picture })
    });
    let png = decoding.await.map_err(|e| Refusal::body(field, e.to_string()))?;
    let png = png.map_err(|problem| Refusal::body(field, problem))?;
    Ok(pictures::store(state, caller, field, &png).await?.into())
}

/// Makes the pictures of a request, and answers with them. `fields`: the request, for the answer.
async fn generate(
    state: &AppState,
    caller: &Caller,
    live: &Live,
    mut request: Request,
    fields: Map<String, Value>,
) -> Answer {
    lists::check_model(state, &fields)?;
    lora::apply(state, &mut request).await?;
    let waiting = Waiting::submit(state, caller, request.inputs(), &[]).await?;
    let _entry = live.enter(&caller.name, waiting.ids());
    let made = waiting.pictures().await?;
    let (mut images, mut texts, mut seeds, mut size) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (picture, seed) in made.iter().zip(request.seeds()) {
        // The web UI answers an interrupted request with what there is.
        let Some(picture) = picture else { continue };
        let png = pictures::read(state, picture).await?;
        seeds.push(seed);
        texts.push(masks::png_text(&png, "parameters").unwrap_or_default());
        size = size.or(masks::png_size(&png));
        images.push(STANDARD.encode(png));
    }
    let info = request.info(&seeds, &texts, size.unwrap_or_default(), &state.engine.model()).to_string();
    if fields.get("send_images").is_some_and(request::is_empty) {
        images.clear();
    }
    Ok(Json(json!({ "images": images, "parameters": fields, "info": info })).into_response())
}
