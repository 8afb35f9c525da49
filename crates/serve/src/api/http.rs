//! What every request goes through: its id, the log, and where it comes from.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use percent_encoding::percent_decode_str;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use tower_http::timeout::TimeoutBody;
use tracing::Instrument;

use super::limits;
use super::refusal::{Dialect, Refusal};
use super::state::AppState;
use super::submit::new_id;
use super::tokens::Caller;
use super::trace;
use crate::error::{Error, Result};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The most characters of a client's own request id.
const MAX_ID: usize = 128;

/// How long a client may say nothing within a body.
const SILENCE: Duration = Duration::from_secs(60);

/// Gives a request its id, which is the client's where that has one, and logs and counts the answer.
pub async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let traceparent = trace::of(request.headers()).traceparent;
    let method = request.method().clone();
    // Without the query, in which signatures are.
    let path = request.uri().path().to_owned();
    let route =
        request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |path| path.as_str().to_owned());
    let request = request.map(|body| Body::new(TimeoutBody::new(SILENCE, body)));
    let span = tracing::info_span!("request", id);
    let mut answer = next.run(request).instrument(span).await;
    let (status, took) = (answer.status().as_u16(), start.elapsed());
    let caller = answer.extensions().get::<Caller>().map_or("", |caller| caller.name.as_str());
    let ms = took.as_millis() as u64;
    match traceparent {
        None => tracing::info!(request_id = id, %method, path, status, ms, caller, "request"),
        Some(traceparent) => {
            tracing::info!(request_id = id, traceparent, %method, path, status, ms, caller, "request");
        }
    }
    state.metrics.request(method.as_str(), &route, status, took);
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_plain =
        |id: &&str| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(is_plain).map_or_else(new_id, String::from)
}

/// Refuses a path whose percent-encoding is no text.
pub async fn readable_path(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    match percent_decode_str(path).decode_utf8() {
        Ok(_) => next.run(request).await,
        Err(_) => {
            let message = "The path's percent-encoding is not UTF-8";
            Refusal::new(StatusCode::BAD_REQUEST, message).in_dialect(Dialect::of_path(path))
        }
    }
}

/// Refuses what a page of another origin would change: a website must not drive a service on the machine of whoever visits it.
pub async fn same_origin(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let reads = matches!(request.method(), &Method::GET | &Method::HEAD | &Method::OPTIONS);
    if reads || is_welcome(&state.settings.cors, state.settings.public_url.as_deref(), request.headers()) {
        return next.run(request).await;
    }
    let message = "A page of another origin may not use this service, unless it is named with --cors";
    Refusal::new(StatusCode::FORBIDDEN, message).in_dialect(Dialect::of_path(request.uri().path()))
}

fn is_welcome(cors: &[String], public_url: Option<&str>, headers: &HeaderMap) -> bool {
    // Programs say no origin; browsers always do.
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    let is_public = public_url.and_then(|url| reqwest::Url::parse(url).ok()).is_some_and(|url| {
        // A proxy may have changed the host.
        url.origin().ascii_serialization() == origin
    });
    own || is_public || cors.iter().any(|known| known == "*" || known == origin)
}

/// The headers for pages of other origins. `None`: there are none that may use the service.
///
/// # Errors
/// An origin is no text for a header.
pub fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let wrong = |origin: &str| Error::Settings(format!("--cors: expected an origin, found {origin:?}"));
    let values = origins.iter().map(|origin| HeaderValue::from_str(origin).map_err(|_| wrong(origin)));
    let values = values.collect::<Result<Vec<_>>>()?;
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(values),
    };
    let layer = CorsLayer::new().allow_origin(allowed);
    let layer =
        layer.allow_methods(AllowMethods::mirror_request()).allow_headers(AllowHeaders::mirror_request());
    let shown = [REQUEST_ID, header::RETRY_AFTER].into_iter().chain(limits::HEADERS);
    Ok(Some(layer.expose_headers(shown.collect::<Vec<_>>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects people who visit websites while their service runs: only the service's own page, those that the operator has named,
    /// and programs get through.
    #[test]
    fn origins() {
        let named = ["https://app.example".to_owned()];
        let public = Some("https://sdxl.example/base");
        for (origin, welcome) in [
            (None, true),
            (Some("http://127.0.0.1:5000"), true),
            (Some("https://app.example"), true),
            (Some("https://sdxl.example"), true),
            (Some("http://sdxl.example"), false),
            (Some("http://127.0.0.1:5001"), false),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            let mut headers =
                HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("127.0.0.1:5000"))]);
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_welcome(&named, public, &headers), welcome, "{origin:?}");
        }
        let any = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://evil.example"))]);
        assert!(is_welcome(&["*".to_owned()], None, &any));
    }
}
