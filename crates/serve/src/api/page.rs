//! The page for people: three files, which the binary carries.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::state::AppState;

/// What the page may load: its own files and the service's answers. Pictures that are not uploaded yet are blobs; previews may be data URIs.
/// No text from a prompt or a file's name can become a script or a style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page itself, for `GET /` by browsers.
pub fn index() -> Response {
    file("text/html; charset=utf-8", include_bytes!("../page/index.html"))
}

/// The page's other files. They hold no secrets: whoever has no token may read them.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/page.css", get(async || file("text/css; charset=utf-8", include_bytes!("../page/page.css"))))
        .route(
            "/page.js",
            get(async || file("text/javascript; charset=utf-8", include_bytes!("../page/page.js"))),
        )
}

fn file(kind: &'static str, bytes: &'static [u8]) -> Response {
    let mut answer = bytes.into_response();
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        // A new binary has another page under the same names.
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}
