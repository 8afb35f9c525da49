//! Bodies of requests.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::multipart::MultipartError;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tower_http::timeout::TimeoutError;

use super::refusal::Refusal;
use super::state::AppState;

/// The most bytes of a JSON body: data URIs are in it.
pub const MAX_JSON: usize = 100 << 20;
/// Bodies up to this size are always taken: requests without files get through, whatever others send.
const SMALL: usize = 64 << 10;
/// How long a body may take that is read as a whole.
const WHOLE: Duration = Duration::from_secs(5 * 60);
/// The unit in which the memory for bodies is counted, in bytes.
const UNIT: usize = 1 << 10;

/// The memory for all bodies together.
pub fn budget(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS)))
}

/// Takes a request's body as long as all bodies together fit into the memory for them. A body counts by what has arrived of it, and until its
/// request is answered: its pictures are in the job that is waited for.
pub async fn bounded(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let left = state.bodies.available_permits().saturating_mul(UNIT);
    let is_crowded = length(request.headers()).is_some_and(|length| length > left.max(SMALL));
    let held = Arc::default();
    let (budget, end) = (state.bodies.clone(), Instant::now() + WHOLE);
    let share = Share { budget, held: Arc::downgrade(&held), size: 0, is_crowded, end };
    let answer = next.run(request.map(|body| share.counts(body))).await;
    drop(held);
    answer
}

/// The share of a body in the memory for all of them.
struct Share {
    budget: Arc<Semaphore>,
    /// Gone when the request is answered, or its client has hung up.
    held: Weak<Mutex<Option<OwnedSemaphorePermit>>>,
    /// Bytes of the body so far.
    size: usize,
    /// Whether the memory is too small for the body. The rest of the body is read, so that the client hears of it, and dropped.
    is_crowded: bool,
    /// When the body is to be there.
    end: Instant,
}

impl Share {
    /// The body, which ends with an error if the memory is too small, or the body too late.
    fn counts(self, body: Body) -> Body {
        Body::from_stream(unfold((body.into_data_stream(), self), |(mut parts, mut share)| async move {
            loop {
                let Ok(part) = timeout_at(share.end, parts.next()).await else {
                    return Some((Err(axum::Error::new(Late)), (parts, share)));
                };
                match part {
                    Some(Ok(part)) if share.takes(part.len()) => return Some((Ok(part), (parts, share))),
                    Some(Err(e)) => return Some((Err(e), (parts, share))),
                    Some(Ok(_)) if share.size <= MAX_JSON => {}
                    _ if share.is_crowded => {
                        share.is_crowded = false;
                        return Some((Err(axum::Error::new(Crowded)), (parts, share)));
                    }
                    _ => return None,
                }
            }
        }))
    }

    /// Takes memory for the next part of the body, of so many bytes. `false`: the memory is too small for this part or was for an earlier one.
    fn takes(&mut self, bytes: usize) -> bool {
        self.size += bytes;
        self.is_crowded = self.is_crowded || !self.grows();
        !self.is_crowded
    }

    /// Takes as much of the memory as the body has by now. `false`: there is not so much.
    fn grows(&self) -> bool {
        // Whoever does not wait for the answer any more reads no more of the body.
        let Some(held) = self.held.upgrade() else { return true };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = self.size.saturating_sub(SMALL).div_ceil(UNIT);
        let missing = needed.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(more) = self.budget.clone().try_acquire_many_owned(missing) else { return false };
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

/// Why a body breaks off: too many bodies are in memory.
#[derive(Debug, thiserror::Error)]
#[error("too many large requests at once")]
struct Crowded;

/// Why a body breaks off: it is not there in time.
#[derive(Debug, thiserror::Error)]
#[error("not there in time")]
struct Late;

/// Whether an error, or what caused it, is of a type.
fn is_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<E>() || error.source().is_some_and(is_by::<E>)
}

/// The refusal of a body that breaks off: too many bodies are in memory, the body is late, the client says nothing more, or the client has hung up.
pub fn broken(error: &(dyn Error + 'static)) -> Refusal {
    if is_by::<Crowded>(error) {
        return Refusal::unavailable(
            "The service has as many large requests at once as it can hold; upload files to /v1/files, or come back later",
        );
    }
    if is_by::<Late>(error) {
        let message = format!("The body is not there after {} s; upload files to /v1/files", WHOLE.as_secs());
        return Refusal::new(StatusCode::REQUEST_TIMEOUT, message);
    }
    if is_by::<TimeoutError>(error) {
        return Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body has stopped");
    }
    Refusal::new(StatusCode::BAD_REQUEST, "The body breaks off")
}

/// The refusal of a body of parts that cannot be read.
pub fn broken_parts(error: &MultipartError) -> Refusal {
    // A failure to read is one of the client, but has the status of one of the service.
    match error.status() {
        status if status.is_client_error() => Refusal::new(status, error.body_text()),
        _ => broken(error),
    }
}

/// The length of a body, as its request says.
fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The bytes of a body of at most [`MAX_JSON`] bytes.
///
/// # Errors
/// The body is larger, or breaks off.
pub async fn bytes(request: Request) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("The body has more than {} MiB; upload files to /v1/files", MAX_JSON >> 20);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if length(request.headers()).is_some_and(|length| length > MAX_JSON) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), MAX_JSON).await.map_err(|e| {
        let mut cause: Option<&dyn Error> = Some(&e);
        while let Some(error) = cause {
            if error.to_string().contains("length limit") {
                return too_large();
            }
            cause = error.source();
        }
        broken(&e)
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
        Ok(other) => Err(Refusal::body("", format!("expected a JSON object, found {}", short(&other)))),
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

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Protects the service from clients that send a body a byte at a time: they are never silent, but their time ends.
    #[tokio::test]
    async fn a_body_that_drips() {
        let held = Arc::default();
        let (budget, end) = (super::budget(1 << 20), Instant::now() + Duration::from_millis(20));
        let share = Share { budget, held: Arc::downgrade(&held), size: 0, is_crowded: false, end };
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok::<_, std::io::Error>(" "), ()))
        });
        let body = share.counts(Body::from_stream(drops));
        let refusal = bytes(Request::new(body)).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::REQUEST_TIMEOUT);
        assert!(refusal.message.starts_with("The body is not there after 300 s"), "{}", refusal.message);
    }
}
