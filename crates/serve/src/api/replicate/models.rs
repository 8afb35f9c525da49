//! Models.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::catalog;
use super::jobs::{Answer, Asked, is_ascending};
use super::versions;
use crate::api::body;
use crate::api::paging::{Cursor, Page};
use crate::api::refusal::{Problem, Refusal};
use crate::api::render::time;
use crate::api::state::{AppState, BASE};
use crate::api::submit::url_base;
use crate::queue::Record;

/// Models of a page.
const PAGE: usize = 25;
/// The most models that a search finds.
const MAX_FOUND: usize = 50;
/// Names that clients of OpenAI's API look for. They mean the base model.
const ALIASES: [&str; 4] = ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini"];
/// The texts that a client may give a model.
const TEXTS: [&str; 7] =
    ["description", "readme", "github_url", "paper_url", "weights_url", "license_url", "cover_image_url"];
const VISIBILITIES: [&str; 2] = ["public", "private"];

/// `GET`, `POST` and `QUERY /models`.
pub async fn collection(
    State(state): State<AppState>,
    Query(query): Query<Asked>,
    request: Request,
) -> Answer {
    let base = url_base(&state, request.headers());
    match request.method().as_str() {
        "GET" | "HEAD" => list(&state, &base, &query).await,
        "POST" => create(&state, &base, request).await,
        "QUERY" => {
            let text = body::bytes(request).await?;
            let text = String::from_utf8_lossy(&text);
            // JavaScript's client sends the text as JSON.
            let text = serde_json::from_str::<String>(&text).unwrap_or_else(|_| text.trim().to_owned());
            let found = find(&state, &text).await?;
            page(&state, &base, &query, found).await
        }
        _ => {
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "expected GET, POST or QUERY");
            let mut answer = refusal.problem();
            answer
                .headers_mut()
                .insert(header::ALLOW, header::HeaderValue::from_static("GET,HEAD,POST,QUERY"));
            Ok(answer)
        }
    }
}

async fn list(state: &AppState, base: &str, query: &Asked) -> Answer {
    let by_version = query.get("sort_by").is_some_and(|by| by == "latest_version_created_at");
    let ascending = is_ascending(query, &["model_created_at", "latest_version_created_at"])?;
    let mut models = catalog::models(state).await?;
    if by_version {
        for model in &mut models {
            let latest = catalog::latest(state, &model.id).await?;
            // The list and its cursors go by this time.
            model.created_at = latest.map_or(0, |version| version.created_at);
        }
        models.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    }
    if ascending {
        models.reverse();
    }
    page(state, base, query, models).await
}

/// A page of models, which OpenAI's clients can read as well.
async fn page(state: &AppState, base: &str, query: &Asked, models: Vec<Record>) -> Answer {
    let cursor = Cursor::of(query)?;
    let data: Vec<Value> = models.iter().map(|model| of_openai(&model.id, model.created_at)).collect();
    let aliases = ALIASES.into_iter().map(|name| of_openai(name, 0));
    let page = Page::of_all(cursor.as_ref(), models, PAGE, |model| (model.created_at, model.id.clone()));
    let mut results = Vec::with_capacity(page.items.len());
    for model in &page.items {
        // Its own time: a list by versions goes by another.
        let model = catalog::model(state, &model.id).await?;
        results.push(json(state, base, &model).await?);
    }
    let mut body = page.json(&format!("{base}/v1/models"), query, results);
    body["object"] = "list".into();
    body["data"] = data.into_iter().chain(aliases).collect();
    Ok(Json(body).into_response())
}

fn of_openai(id: &str, created_at: i64) -> Value {
    let owner = id.split_once('/').map_or("calotype", |(owner, _)| owner);
    let created = DateTime::from_timestamp_millis(created_at).unwrap_or_default().timestamp();
    json!({ "id": id, "object": "model", "created": created, "owned_by": owner })
}

/// `GET /models/{name}`, which is OpenAI's: its clients write `owner/name` as one segment.
pub async fn openai(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    if ALIASES.contains(&name.as_str()) {
        return Json(of_openai(&name, 0)).into_response();
    }
    match catalog::model(&state, &name).await {
        Ok(model) => Json(of_openai(&model.id, model.created_at)).into_response(),
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {
            let shown = body::short(&name.into());
            Refusal::no_model(shown.trim_matches('"')).openai()
        }
        Err(refusal) => refusal.openai(),
    }
}

/// A model as JSON.
async fn json(state: &AppState, base: &str, model: &Record) -> Result<Value, Refusal> {
    let (owner, name) = model.id.split_once('/').unwrap_or(("", &model.id));
    let latest = catalog::latest(state, &model.id).await?;
    let text = |field: &str| model.body.get(field).cloned().unwrap_or_default();
    let visibility = model.body.get("visibility").cloned().unwrap_or_else(|| "private".into());
    Ok(json!({
        "url": format!("{base}/v1/models/{}", model.id),
        "owner": owner,
        "name": name,
        "description": text("description"),
        "visibility": visibility,
        "is_official": model.id == BASE,
        "github_url": text("github_url"),
        "paper_url": text("paper_url"),
        "weights_url": text("weights_url"),
        "license_url": text("license_url"),
        "cover_image_url": text("cover_image_url"),
        "run_count": state.queue.runs(&model.id).await?,
        "default_example": null,
        "created_at": time(model.created_at),
        "latest_version": latest.map(|version| versions::json(state, &version)),
    }))
}

/// The base model as JSON.
///
/// # Errors
/// The database does not answer.
pub async fn base(state: &AppState, base: &str) -> Result<Value, Refusal> {
    json(state, base, &catalog::model(state, BASE).await?).await
}

async fn create(state: &AppState, base: &str, request: Request) -> Answer {
    let given = body::object(request).await?;
    let mut required = Vec::new();
    for field in ["owner", "name", "visibility", "hardware"] {
        let text = body::text(&given, field)?;
        required.push(text.ok_or_else(|| Refusal::body(field, "expected text, found nothing"))?);
    }
    let model = format!("{}/{}", required[0], required[1]);
    if !catalog::is_model(&model) {
        return Err(Refusal::body(
            "name",
            "expected small letters, digits and -_. in the owner and the name",
        )
        .into());
    }
    let mut body = fields(&given)?;
    body.insert("hardware".into(), required[3].as_str().into());
    if !catalog::put_model(state, &model, body).await? {
        let message = format!("A model {model} exists already");
        return Err(Refusal::new(StatusCode::CONFLICT, message).into());
    }
    let model = catalog::model(state, &model).await?;
    Ok((StatusCode::CREATED, Json(json(state, base, &model).await?)).into_response())
}

/// The fields of a body that a model keeps.
fn fields(given: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let mut kept = Map::new();
    for field in TEXTS {
        if let Some(text) = body::text(given, field)? {
            kept.insert(field.into(), text.into());
        }
    }
    if let Some(visibility) = body::text(given, "visibility")? {
        if !VISIBILITIES.contains(&visibility.as_str()) {
            return Err(Refusal::body(
                "visibility",
                format!("expected public or private, found {visibility:?}"),
            ));
        }
        kept.insert("visibility".into(), visibility.into());
    }
    Ok(kept)
}

/// `GET /models/{owner}/{name}`.
pub async fn get(
    State(state): State<AppState>,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let model = catalog::model(&state, &format!("{owner}/{name}")).await?;
    Ok(Json(json(&state, &url_base(&state, &headers), &model).await?).into_response())
}

/// `PATCH /models/{owner}/{name}`.
pub async fn change(
    State(state): State<AppState>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let base = url_base(&state, request.headers());
    let given = body::object(request).await?;
    let mut model = catalog::model(&state, &format!("{owner}/{name}")).await?;
    let changes = fields(&given)?;
    if let Some(body) = model.body.as_object_mut() {
        // An empty text takes back what was there.
        body.extend(changes);
        body.retain(|_, value| value != "");
    }
    state.queue.replace_record(model.clone()).await?;
    Ok(Json(json(&state, &base, &model).await?).into_response())
}

/// `DELETE /models/{owner}/{name}`.
pub async fn delete(State(state): State<AppState>, Path((owner, name)): Path<(String, String)>) -> Answer {
    let model = catalog::model(&state, &format!("{owner}/{name}")).await?.id;
    if model == BASE {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "The base model cannot be deleted").into());
    }
    if catalog::latest(&state, &model).await?.is_some() {
        let message = format!("The model {model} has versions; delete them first");
        return Err(Refusal::new(StatusCode::CONFLICT, message).into());
    }
    state.queue.delete_record("model", &model).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /models/{owner}/{name}/readme`.
pub async fn readme(State(state): State<AppState>, Path((owner, name)): Path<(String, String)>) -> Answer {
    let model = catalog::model(&state, &format!("{owner}/{name}")).await?;
    let text = model.body.get("readme").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Never a page: a browser is to show the text as it is.
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, text).into_response())
}

/// `GET /models/{owner}/{name}/examples`: none are kept.
pub async fn examples(State(state): State<AppState>, Path((owner, name)): Path<(String, String)>) -> Answer {
    catalog::model(&state, &format!("{owner}/{name}")).await?;
    Ok(Json(json!({ "previous": null, "next": null, "results": [] })).into_response())
}

/// `GET /search`.
pub async fn search(State(state): State<AppState>, Query(query): Query<Asked>, headers: HeaderMap) -> Answer {
    let text = query.get("query").map(String::as_str).unwrap_or_default();
    let limit = match query.get("limit").map(|limit| limit.parse::<usize>()) {
        None => 20,
        Some(Ok(limit)) if (1..=MAX_FOUND).contains(&limit) => limit,
        Some(_) => {
            return Err(Problem(Refusal::body("limit", format!("expected a number from 1 to {MAX_FOUND}"))));
        }
    };
    let base = url_base(&state, &headers);
    let mut models = Vec::new();
    for model in find(&state, text).await?.iter().take(limit) {
        models.push(json!({ "model": json(&state, &base, model).await?, "metadata": {} }));
    }
    Ok(Json(json!({ "query": text, "models": models, "collections": [], "pages": [] })).into_response())
}

/// The models whose name or description has all words of a text.
async fn find(state: &AppState, text: &str) -> Result<Vec<Record>, Refusal> {
    let words: Vec<String> = text.to_lowercase().split_whitespace().map(String::from).collect();
    let mut models = catalog::models(state).await?;
    models.retain(|model| {
        let about = model.body.get("description").and_then(Value::as_str).unwrap_or_default();
        let about = format!("{} {about}", model.id).to_lowercase();
        words.iter().all(|word| about.contains(word))
    });
    Ok(models)
}
