//! Bodies of requests.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The most bytes of a JSON body: data URIs are in it.
pub const MAX_JSON: usize = 100 << 20;

/// The bytes of a body of at most [`MAX_JSON`] bytes.
///
/// # Errors
/// The body is larger, or breaks off.
pub async fn bytes(request: Request) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("The body has more than {} MiB; upload files to /v1/files", MAX_JSON >> 20);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let said =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if said.is_some_and(|length: usize| length > MAX_JSON) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), MAX_JSON).await.map_err(|e| {
        let mut cause: Option<&dyn std::error::Error> = Some(&e);
        while let Some(error) = cause {
            if error.to_string().contains("length limit") {
                return too_large();
            }
            cause = error.source();
        }
        Refusal::new(StatusCode::BAD_REQUEST, "The body breaks off")
    })
}

/// The JSON object of a body, whatever content type it says it has. An empty body, and `null`, are an empty object.
///
/// # Errors
/// As [`bytes`], or the body is no JSON object.
pub async fn object(request: Request) -> Result<Map<String, Value>, Refusal> {
    let bytes = bytes(request).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Refusal::body("", "expected a JSON object")),
        Err(e) => Err(Refusal::body("", format!("expected JSON: {e}"))),
    }
}

/// A text of a body. `None`: not given, or null.
///
/// # Errors
/// The field is no text.
pub fn text(body: &Map<String, Value>, field: &str) -> Result<Option<String>, Refusal> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Refusal::body(field, format!("expected text, found {}", short(other)))),
    }
}

/// The beginning of a value, for a message.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
