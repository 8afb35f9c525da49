//! A server of somebody else's, which notes what it is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Method and path.
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    /// A header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What the server answers first: a status, and where to go from there. Then it answers 200.
type Answers = Vec<(u16, Option<&'static str>)>;

#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<(Answers, Vec<Heard>)>>);

impl Receiver {
    /// A server on this machine. Returns its address as well.
    pub async fn start(answers: &[(u16, Option<&'static str>)]) -> (Receiver, String) {
        let receiver = Receiver::default();
        receiver.0.lock().unwrap().0 = answers.to_vec();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(hear).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (receiver, address)
    }

    /// What has come so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().1.clone()
    }

    /// What has come, once there are so many.
    pub async fn hears(&self, count: usize) -> Vec<Heard> {
        let arrived = async {
            while self.heard().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("nothing more came");
        self.heard()
    }
}

async fn hear(State(receiver): State<Receiver>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let line = format!("{} {}", parts.method, parts.uri);
    let mut state = receiver.0.lock().unwrap();
    state.1.push(Heard { line, headers: parts.headers, body });
    let (status, location) = if state.0.is_empty() { (200, None) } else { state.0.remove(0) };
    let mut answer = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(location) = location {
        answer.headers_mut().insert("location", location.parse().unwrap());
    }
    answer
}
