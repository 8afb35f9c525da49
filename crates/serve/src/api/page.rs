//! The page for people: files that the binary carries.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::state::AppState;
use crate::engine::Engine;

/// What the page may load: its own files and the service's answers. Pictures that are not uploaded yet are blobs; previews may be data URIs.
/// No text from a prompt or a file's name can become a script or a style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Names and contents of files in `page/`.
macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../page/", $name)))),*] };
}

/// The files beside the page itself. They hold no secrets: whoever has no token may read them.
const FILES: [(&str, &str); 17] = files![
    "page.css",
    "page.js",
    "dom.js",
    "files.js",
    "form.js",
    "history.js",
    "make.js",
    "paint.js",
    "photos.js",
    "pictures.js",
    "progress.js",
    "report.js",
    "service.js",
    "tar.js",
    "train.js",
    "trainings.js",
    "zip.js",
];

/// The page itself, for `GET /` by browsers.
pub fn index(engine: &dyn Engine) -> Response {
    file("text/html; charset=utf-8", page(&engine.model(), engine.native_size()))
}

/// The page of a service with this model, which it names, unless that is a path: whoever has no token may read the page.
fn page(model: &str, native_size: Option<usize>) -> String {
    let is_path =
        model.starts_with(['/', '.', '~']) || model.contains('\\') || model.matches('/').count() > 1;
    let size = native_size.map(|side| side.to_string()).unwrap_or_default();
    let page = include_str!("../page/index.html").replace("{native size}", &size);
    page.replace("{model}", &escaped(if is_path { "" } else { model }))
}

/// A text as the value of an attribute.
fn escaped(text: &str) -> String {
    let signs = [("&", "&amp;"), ("\"", "&quot;"), ("<", "&lt;"), (">", "&gt;")];
    signs.iter().fold(text.to_owned(), |text, (sign, name)| text.replace(sign, name))
}

/// The page's other files.
pub fn routes() -> Router<AppState> {
    Router::new().route("/page/{name}", get(named))
}

async fn named(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) if name.ends_with(".css") => file("text/css; charset=utf-8", *text),
        Some((_, text)) => file("text/javascript; charset=utf-8", *text),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn file(kind: &'static str, text: impl IntoResponse) -> Response {
    let mut answer = text.into_response();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::Service;

    /// Protects the page in the binary: a file that another one names is served, with the policy, and nothing else is.
    #[tokio::test]
    async fn what_the_page_names_is_served() {
        let service = Service::start().await;
        let index = service.client.get(&service.url).header("accept", "text/html").send().await.unwrap();
        assert_eq!(index.headers()[CONTENT_SECURITY_POLICY], POLICY);
        let index = index.text().await.unwrap();
        let mut named: Vec<String> = index.split("\"/page/").skip(1).map(until_quote).collect();
        named.extend(FILES.iter().flat_map(|(_, text)| text.split("from \"./").skip(1).map(until_quote)));
        for (name, text) in FILES {
            assert!(named.contains(&name.into()), "{name}: no file names it");
            let answer = service.client.get(format!("{}/page/{name}", service.url)).send().await.unwrap();
            assert_eq!(answer.headers()[CONTENT_SECURITY_POLICY], POLICY, "{name}");
            let kind = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
            assert!(answer.headers()[CONTENT_TYPE].to_str().unwrap().starts_with(kind), "{name}");
            assert_eq!(answer.text().await.unwrap(), text, "{name}");
        }
        for name in &named {
            assert!(FILES.iter().any(|(known, _)| known == name), "{name}: not served");
        }
        assert_eq!(service.get("/page/index.html").await.0, 404);
    }

    /// Protects what the page says of the model: a name is told, its text becomes no HTML; a path of the operator's is nobody's business.
    #[test]
    fn the_page_names_the_model() {
        let page = |model: &str| page(model, Some(128));
        assert!(page("pocket").contains("<meta name=\"model\" content=\"pocket\">"));
        assert!(page("pocket").contains("<meta name=\"native-size\" content=\"128\">"));
        assert!(page("a/b\"><script>").contains("content=\"a/b&quot;&gt;&lt;script&gt;\""));
        for path in ["/models/x", "./pocket", "~/x", "models/a/b", "C:\\models"] {
            assert!(page(path).contains("<meta name=\"model\" content=\"\">"), "{path}");
        }
    }

    fn until_quote(text: &str) -> String {
        text.split('"').next().unwrap_or_default().into()
    }

    /// Protects visitors from prompts and file names that are scripts: the page's own files make no HTML from text.
    #[test]
    fn no_html_is_made_from_text() {
        for (name, text) in FILES {
            for risky in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "setAttribute(\"style\"",
            ] {
                assert!(!text.contains(risky), "{name}: {risky}");
            }
        }
    }
}
