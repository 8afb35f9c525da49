//! Uploaded files, as Replicate's API has them, and downloads by signed URLs.

use std::collections::HashMap;

use axum::extract::multipart::MultipartRejection;
use axum::extract::{DefaultBodyLimit, Multipart, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::{Cursor, Page};
use super::refusal::{Problem, Refusal};
use super::state::AppState;
use super::submit::{new_id, url_base};
use super::tokens::Caller;
use super::upload::{self, Upload};
use crate::error::Result;
use crate::inputs::{StoredFile, file_name};
use crate::storage;

/// The files of a page of the listing.
const PAGE: usize = 100;
/// The most files of a listing.
const MOST: usize = 100_000;
/// For ever, in days: a file without an end still shows one.
const FOR_EVER: u32 = 36_500;
const DAY: i64 = 24 * 3600 * 1000;

/// `/files` and what is below, for callers with a token.
pub(super) fn routes() -> Router<AppState> {
    let create = get(list).post(create).layer(DefaultBodyLimit::disable());
    Router::new().route("/files", create).route("/files/{id}", get(show).delete(delete))
}

/// Downloads by signed URLs, for whoever has one.
pub(super) fn public_routes() -> Router<AppState> {
    Router::new()
        .route("/outputs/{*key}", get(output))
        .route("/v1/files/{id}/download", get(download))
        .route("/v1/v1/files/{id}/download", get(download))
}

type Answer = std::result::Result<Response, Problem>;

/// Stores a file of a caller. Returns its record.
pub(super) async fn keep(state: &AppState, owner: &str, upload: Upload) -> Result<StoredFile> {
    let id = new_id();
    let key = format!("files/{id}/{}", file_name(&upload.name));
    // The storage first: a record without a file would be a promise that is not kept; a file without a record is swept.
    state.storage.put_open(&key, upload.file).await?;
    let created_at = state.queue.now().await?;
    let days = state.settings.keep_days.unwrap_or(FOR_EVER);
    let file = StoredFile {
        id,
        owner: owner.into(),
        name: upload.name,
        content_type: upload.content_type,
        size: upload.size,
        sha256: upload.sha256,
        md5: upload.md5,
        metadata: upload.metadata,
        key,
        created_at,
        expires_at: created_at + i64::from(days) * DAY,
    };
    state.queue.put_record(file.record()).await?;
    Ok(file)
}

async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    parts: std::result::Result<Multipart, MultipartRejection>,
) -> Answer {
    let expected = "expected multipart/form-data with a part `content`";
    let parts = parts.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, expected))?;
    let folder = state.settings.data.join("tmp");
    let upload = upload::read(parts, &folder, state.settings.max_file, upload::SILENCE).await?;
    let file = keep(&state, &caller.name, upload).await?;
    Ok((StatusCode::CREATED, Json(shown(&state, &headers, &file))).into_response())
}

async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let cursor = Cursor::of(&query)?;
    let records = state.queue.records("file", Some(&caller.name), None, MOST).await?;
    let files = records.into_iter().map(StoredFile::of).collect::<Result<Vec<_>>>()?;
    let page = Page::of_all(cursor.as_ref(), files, PAGE, |file| (file.created_at, file.id.clone()));
    let results = page.items.iter().map(|file| shown(&state, &headers, file)).collect();
    let url = format!("{}/v1/files", url_base(&state, &headers));
    Ok(Json(page.json(&url, &query, results)).into_response())
}

async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let file = of_caller(&state, &caller, &id).await?;
    Ok(Json(shown(&state, &headers, &file)).into_response())
}

async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let file = of_caller(&state, &caller, &id).await?;
    state.queue.delete_record("file", &id).await?;
    state.storage.delete(&file.key).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A file of the caller; files of others are not found.
async fn of_caller(state: &AppState, caller: &Caller, id: &str) -> std::result::Result<StoredFile, Refusal> {
    let file = StoredFile::find(&state.queue, id).await?.filter(|file| file.owner == caller.name);
    file.ok_or_else(|| Refusal::not_found("The requested file does not exist, or its time is over."))
}

#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    owner: String,
    #[serde(default)]
    expiry: String,
    #[serde(default)]
    signature: String,
}

async fn download(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(signed): Query<Signed>,
    headers: HeaderMap,
) -> Answer {
    let is_signed = state.links.check_file(&signed.owner, &id, &signed.expiry, &signed.signature);
    let end = signed.expiry.parse::<i64>().unwrap_or(0);
    if !is_signed || end <= state.queue.now().await? / 1000 {
        let message = "The URL is not signed by this service, or its time is over.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message).into());
    }
    let file = StoredFile::find(&state.queue, &id).await?;
    let file = file.ok_or_else(|| Refusal::not_found("The file is not there any more."))?;
    Ok(storage::download(&state.storage, &file.key, &headers, Some(&file.name)).await?)
}

#[derive(Deserialize)]
struct Signature {
    #[serde(default)]
    signature: String,
}

async fn output(
    State(state): State<AppState>,
    Path(key): Path<String>,
    Query(Signature { signature }): Query<Signature>,
    headers: HeaderMap,
) -> Answer {
    if !state.links.check(&key, &signature) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "The URL is not signed by this service.").into());
    }
    Ok(storage::download(&state.storage, &key, &headers, None).await?)
}

/// A file as the API shows it.
fn shown(state: &AppState, headers: &HeaderMap, file: &StoredFile) -> Value {
    let base = url_base(state, headers);
    let download = state.links.file_url(&base, &file.owner, &file.id, file.expires_at / 1000);
    json!({
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size,
        "etag": file.md5,
        "checksums": { "sha256": file.sha256, "md5": file.md5 },
        "metadata": file.metadata,
        "created_at": time(file.created_at),
        "expires_at": time(file.expires_at),
        "urls": { "get": format!("{base}/v1/files/{}", file.id), "download": download },
    })
}

fn time(milliseconds: i64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(milliseconds)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use calotype_request::PredictInput;
    use reqwest::Method;
    use serde_json::{Map, Value, json};

    use crate::api::tests::{self as testing, Service};
    use crate::inputs;

    async fn upload(service: &Service, name: &str, content: &str) -> (u16, Value) {
        let body = format!(
            "--x\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\nContent-Type: text/html\r\n\r\n{content}\r\n--x--\r\n"
        );
        let request = service.client.post(format!("{}/v1/files", service.url)).body(body);
        testing::read(request.header("content-type", "multipart/form-data; boundary=x")).await
    }

    /// Protects: an upload's whole life: made, shown, listed, downloaded by a signed URL, used as an input, deleted.
    #[tokio::test]
    async fn a_life() {
        let service = Service::start().await;
        let (status, file) = upload(&service, "../<b>.html", "<script>").await;
        assert_eq!((status, &file["name"], &file["size"]), (201, &json!("<b>.html"), &json!(8)), "{file}");
        assert!(file["expires_at"].is_string() && file["checksums"]["sha256"].is_string());
        let id = file["id"].as_str().unwrap();
        assert_eq!(service.get(&format!("/v1/files/{id}")).await, (200, file.clone()));
        assert_eq!(
            service.get("/v1/v1/files").await.1,
            json!({ "previous": null, "next": null, "results": [file] })
        );

        let url = file["urls"]["download"].as_str().unwrap();
        let answer = service.client.get(url).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_string();
        assert_eq!(answer.status(), 200);
        // What a user uploads is never a page of the service.
        assert_eq!(header("content-type"), "application/octet-stream");
        assert!(
            header("content-disposition").starts_with("attachment; ")
                && header("content-security-policy").contains("sandbox")
        );
        assert_eq!(answer.text().await.unwrap(), "<script>");
        let other = url.replace("expiry=", "expiry=9");
        for wrong in [
            other.as_str(),
            url.split('?').next().unwrap(),
            &format!("{}/outputs/files/{id}/x?signature=00", service.url),
        ] {
            assert_eq!(service.client.get(wrong).send().await.unwrap().status(), 403, "{wrong}");
        }

        let input = Map::from_iter([("image".to_string(), file["urls"]["get"].clone())]);
        let folder = tempfile::tempdir().unwrap();
        let resolved = inputs::resolve(&service.state.inputs, &PredictInput::schema(), &input, folder.path())
            .await
            .unwrap();
        let path = std::path::Path::new(resolved["image"].as_str().unwrap());
        assert!(path.starts_with(folder.path()) && path.file_name().unwrap() == "_b_.html");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "<script>");

        let delete = || service.client.request(Method::DELETE, format!("{}/v1/files/{id}", service.url));
        assert_eq!(testing::read(delete()).await.0, 204);
        assert_eq!(testing::read(delete()).await.0, 404);
        assert_eq!(service.client.get(url).send().await.unwrap().status(), 404);
        let gone = inputs::resolve(&service.state.inputs, &PredictInput::schema(), &input, folder.path())
            .await
            .unwrap_err();
        assert!(gone.to_string().contains("no such file here"), "{gone}");
    }

    /// Protects: a body that is no upload is told what is expected, in Replicate's form.
    #[tokio::test]
    async fn no_upload() {
        let service = Service::start().await;
        let (status, answer) = service.post("/v1/files", json!({})).await;
        assert_eq!((status, &answer["status"]), (400, &json!(400)));
        assert!(answer["detail"].as_str().unwrap().starts_with("expected multipart/form-data"), "{answer}");
    }

    /// Protects: outputs answer whoever has their URL, and nobody else.
    #[tokio::test]
    async fn outputs() {
        let service = Service::start().await;
        service.state.storage.put("jobs/a/1/out-0.png", "picture".into()).await.unwrap();
        let url = service.state.links.url(&service.url, "jobs/a/1/out-0.png");
        let answer = service.client.get(&url).bearer_auth("unknown").send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"image/png".parse().unwrap())
        );
        let other = url.replace("out-0", "out-1");
        for wrong in [other.as_str(), url.split('?').next().unwrap()] {
            assert_eq!(service.client.get(wrong).send().await.unwrap().status(), 403);
        }
    }
}
