//! Who makes a request, and whether they may.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::hosts;
use super::refusal::{Dialect, Refusal};
use super::state::AppState;
pub use super::tokens::{Caller, Rights};
use super::trace;

/// Lets a request through whose token allows it, with its [`Caller`] as an extension.
pub async fn check(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/" && is_browser(request.headers()) {
        // The page has no secrets, and is what asks for the token.
        return next.run(request).await;
    }
    if !state.tokens.are_asked()
        && let Err(refusal) = hosts::check(&state.settings, request.uri(), request.headers())
    {
        return refusal.in_dialect(Dialect::of_path(path));
    }
    let mut caller = match caller(&state, request.headers()) {
        Ok(caller) => caller,
        Err(message) => {
            let scheme = if path.starts_with("/sdapi/") { "Basic realm=\"calotype\"" } else { "Bearer" };
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, message);
            let mut answer = refusal.in_dialect(Dialect::of_path(path));
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            return answer;
        }
    };
    caller.trace = trace::of(request.headers());
    let dialect = Dialect::of_path(path);
    let (left, allowed) = match caller.limits.requests.as_ref().map(|bucket| bucket.take(Instant::now())) {
        None => (None, Ok(())),
        Some(Ok(left)) => (Some(left), Ok(())),
        Some(Err((left, seconds))) => (Some(left), Err(Refusal::throttled(seconds))),
    };
    let is_right = caller.rights >= needed(request.method(), path);
    let mut answer = match allowed {
        Err(refusal) => refusal.in_dialect(dialect),
        Ok(()) if !is_right => {
            let message = format!("The token of {} does not allow this", caller.name);
            Refusal::new(StatusCode::FORBIDDEN, message).in_dialect(dialect)
        }
        Ok(()) => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
    };
    if let Some(left) = left {
        left.tell(answer.headers_mut());
    }
    // For the log.
    answer.extensions_mut().insert(caller);
    answer
}

/// Whether a request for `/` comes from a browser, which gets the page.
pub fn is_browser(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The right that a request needs.
fn needed(method: &Method, path: &str) -> Rights {
    let reads = matches!(method.as_str(), "GET" | "HEAD" | "QUERY" | "OPTIONS");
    match path {
        "/shutdown" => Rights::Admin,
        // Who has the secret can sign in the service's name.
        _ if path.ends_with("/webhooks/default/secret") => Rights::Write,
        _ if reads => Rights::Read,
        _ => Rights::Write,
    }
}

fn caller(state: &AppState, headers: &HeaderMap) -> Result<Caller, &'static str> {
    if !state.tokens.are_asked() {
        return Ok(Caller::local());
    }
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(token_of).ok_or("You did not pass an authentication token")?;
    state.tokens.find(&token).ok_or("You did not pass a valid authentication token")
}

/// The token of an `Authorization` header: `Bearer TOKEN`, `Token TOKEN`, or Basic, where the token is the password.
fn token_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" => Some(rest.into()),
        "basic" => {
            let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            Some(if password.is_empty() { user } else { password }.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects clients: each of them finds its way of naming the token, and nothing else is taken for one.
    #[test]
    fn headers_with_tokens() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Token abc", Some("abc")),
            (&basic("me:abc"), Some("abc")),
            (&basic("abc:"), Some("abc")),
            (&basic("me:a:b"), Some("a:b")),
            ("abc", None),
            ("Digest abc", None),
            ("Basic !", None),
            (&basic("abc"), None),
        ] {
            assert_eq!(token_of(header).as_deref(), token, "{header}");
        }
    }

    /// Protects services whose readers are many: what changes something needs another right than what shows it.
    #[test]
    fn rights_of_requests() {
        let query = Method::from_bytes(b"QUERY").unwrap();
        for (method, path, right) in [
            (Method::GET, "/v1/predictions", Rights::Read),
            (query, "/v1/models", Rights::Read),
            (Method::POST, "/v1/predictions", Rights::Write),
            (Method::PUT, "/predictions/a", Rights::Write),
            (Method::DELETE, "/v1/models/a/b", Rights::Write),
            (Method::GET, "/v1/webhooks/default/secret", Rights::Write),
            (Method::POST, "/shutdown", Rights::Admin),
        ] {
            assert_eq!(needed(&method, path), right, "{method} {path}");
        }
    }
}
