//! OpenAI's images API: `POST /v1/images/generations` and `/v1/images/edits`. `GET /v1/models` is Replicate's, and serves both.
//!
//! `model` is the base model's name, one of OpenAI's names, or the name of a trained model, whose weights are then used. Other names are not found. `quality`, `style`, `user`, `background`, `moderation` and
//! `input_fidelity` are accepted and mean nothing here. Beyond OpenAI's fields there are `negative_prompt`, `seed`, `steps`,
//! `guidance_scale` and `prompt_strength`.
//!
//! ```text
//! request.rs   the fields of a request → inputs of predictions
//! edits.rs     the parts of an edit
//! stream.rs    answers as events
//! ```

mod edits;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Multipart, Request as AnyRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use self::request::{Answer, Request};
use super::pictures::{self, Picture, Waiting};
use super::refusal::Refusal;
use super::state::{ALIASES, AppState, BASE};
use super::submit::url_base;
use super::tokens::Caller;
use super::{body, masks, trained};

/// How the names of OpenAI's models for pictures begin.
const PREFIXES: [&str; 3] = ["dall-e-", "gpt-image-", "chatgpt-image"];
/// The most bytes of an edit's body: its picture and its mask.
const MOST_BYTES: usize = 100 << 20;

/// The two endpoints, below `/v1`.
pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/images/generations", post(generations))
        .route("/images/edits", post(edits).layer(DefaultBodyLimit::max(MOST_BYTES)))
}

/// A refusal as OpenAI's clients read it.
struct Problem(Refusal);

impl<E: Into<Refusal>> From<E> for Problem {
    fn from(e: E) -> Problem {
        Problem(e.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let has_failed = self.0.status == StatusCode::INTERNAL_SERVER_ERROR;
        let mut answer = pictures::renamed(self.0, request::theirs).openai();
        // A prediction that failed fails again; their clients would try it twice more.
        if has_failed {
            answer.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        answer
    }
}

async fn generations(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: AnyRequest,
) -> Result<Response, Problem> {
    let fields = body::object(request).await?;
    let request = Request::of_fields(&fields)?;
    answer(&state, &caller, &headers, request, Vec::new(), "image_generation").await
}

async fn edits(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    parts: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let parts = parts.map_err(|_| Refusal::body("image", "expected multipart/form-data"))?;
    let edit = edits::read(parts).await?;
    let mut request = Request::of_fields(&edit.fields)?;
    request.set("image", pictures::store(&state, &caller, "image", &edit.image).await?.into());
    if let Some(mask) = edit.mask {
        request.set("mask", pictures::store(&state, &caller, "mask", &mask).await?.into());
    }
    let warnings = match edit.left_out {
        0 => Vec::new(),
        count => {
            vec![format!("warning: image: one picture is edited, the first; {count} more were left out")]
        }
    };
    answer(&state, &caller, &headers, request, warnings, "image_edit").await
}

/// Makes the pictures of a request, and answers with them. `warnings`: what the jobs' logs begin with; `events`: how the names of events begin, if the answer is streamed.
async fn answer(
    state: &AppState,
    caller: &Caller,
    headers: &HeaderMap,
    mut request: Request,
    warnings: Vec<String>,
    events: &'static str,
) -> Result<Response, Problem> {
    if let Some(weights) = weights(state, &request.model).await? {
        request.set("replicate_weights", state.links.url("", &weights).into());
    }
    let (inputs, how) = request.into_inputs();
    let waiting = Waiting::submit(state, caller, inputs, &warnings).await?;
    if let Some(partial_images) = how.stream {
        return Ok(stream::answer(state, waiting, how, partial_images, events));
    }
    let (mut data, mut size) = (Vec::new(), None);
    let made: Option<Vec<Picture>> = waiting.pictures().await?.into_iter().collect();
    let made = made.ok_or_else(canceled)?;
    for picture in &made {
        let png = pictures::read(state, picture).await?;
        size = size.or(masks::png_size(&png));
        data.push(shown(state, headers, picture, png, &how).await?);
    }
    let created = made.first().map_or(0, |picture| picture.job.created_at / 1000);
    let format = how.format.name();
    let mut body =
        json!({ "created": created, "data": data, "output_format": format, "background": "opaque" });
    if let Some((width, height)) = size {
        body["size"] = format!("{width}x{height}").into();
    }
    if let Some(quality) = how.quality {
        body["quality"] = quality.into();
    }
    Ok(Json(body).into_response())
}

/// The storage key of the weights of a model. `None`: the model is the base model.
async fn weights(state: &AppState, model: &str) -> Result<Option<String>, Problem> {
    let versions = trained::versions(state).await?;
    if let Some(version) = trained::find(&versions, model) {
        return Ok(Some(version.weights.clone()));
    }
    if is_base(state, model) {
        return Ok(None);
    }
    let shown = body::short(&model.into());
    let shown = shown.trim_matches('"');
    Err(Problem(Refusal::no_model(shown)))
}

/// Whether a name is one of the base model: none at all, OpenAI's, which clients send where nobody has chosen one, or its own.
fn is_base(state: &AppState, name: &str) -> bool {
    let own = state.engine.model();
    let is_own = |known: &str| known == name || known.rsplit('/').next() == Some(name);
    let version = name.strip_prefix(BASE).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
    let is_version = version == state.version || ALIASES.contains(&version);
    name.is_empty()
        || is_own(BASE)
        || is_own(&own)
        || is_version
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn canceled() -> Refusal {
    pictures::failed("the prediction was canceled")
}

/// A PNG file in a format.
async fn encoded(png: Bytes, format: masks::Format) -> Result<Vec<u8>, Refusal> {
    let converted = tokio::task::spawn_blocking(move || masks::convert(&png, format)).await;
    converted.map_err(|e| pictures::failed(e.to_string()))?.map_err(pictures::failed)
}

/// A picture as the request wants to have it.
async fn shown(
    state: &AppState,
    headers: &HeaderMap,
    picture: &Picture,
    png: Bytes,
    how: &Answer,
) -> Result<Value, Refusal> {
    let format = how.format;
    if how.as_url && format == masks::Format::Png {
        return Ok(json!({ "url": state.links.url(&url_base(state, headers), &picture.key) }));
    }
    let bytes = encoded(png, format).await?;
    if !how.as_url {
        return Ok(json!({ "b64_json": STANDARD.encode(bytes) }));
    }
    let key = format!("{}.{}", picture.key.trim_end_matches(".png"), format.extension());
    state.storage.put(&key, bytes.into()).await?;
    Ok(json!({ "url": state.links.url(&url_base(state, headers), &key) }))
}
