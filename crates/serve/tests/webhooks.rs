//! The sender of webhooks, against a receiver on this machine.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use calotype_serve::job::{Kind, NewJob, Status};
use calotype_serve::queue::{Outcome, Queue};
use calotype_serve::webhooks;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};

use common::{Bench, job};

/// What the receiver heard, and what it answers first.
#[derive(Default)]
struct Heard {
    requests: Vec<(HeaderMap, String)>,
    answers: Vec<StatusCode>,
}

type Shared = Arc<Mutex<Heard>>;

async fn hear(State(heard): State<Shared>, headers: HeaderMap, body: String) -> StatusCode {
    let mut heard = heard.lock().unwrap();
    heard.requests.push((headers, body));
    if heard.answers.is_empty() { StatusCode::OK } else { heard.answers.remove(0) }
}

async fn receiver(answers: &[StatusCode]) -> (String, Shared) {
    let heard = Shared::default();
    heard.lock().unwrap().answers = answers.to_vec();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().fallback(hear).with_state(heard.clone());
    tokio::spawn(async { axum::serve(listener, router).await });
    (address, heard)
}

fn send(queue: &Queue) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let request: webhooks::Request = Arc::new(move |url| match url {
        "http://private/" => Err("the address is private".into()),
        url => Ok(client.post(url)),
    });
    let render: webhooks::Render = Arc::new(|job| {
        let body =
            json!({"id": job.id(), "status": job.status.name(), "output": job.output, "logs": job.logs});
        Box::pin(async move { Ok(body) })
    });
    tokio::spawn(webhooks::sender(queue.clone(), request, render));
}

/// A job that has started and ended, with a webhook for all events.
async fn ended(queue: &Queue, id: &str, webhook: &str) {
    let new = NewJob { webhook: Some(webhook.into()), ..job(id) };
    queue.insert(new, 10).await.unwrap();
    queue.claim("w", &Kind::ALL, Duration::from_secs(60)).await.unwrap().unwrap();
    let outcome = Outcome {
        status: Status::Succeeded,
        output: Some(json!(["a.png"])),
        error: None,
        metrics: Map::new(),
        logs: "line\n".into(),
        record: None,
    };
    assert!(queue.finish(id, 1, outcome).await.unwrap());
}

/// Waits for a number of requests. Returns them.
async fn requests(heard: &Shared, count: usize) -> Vec<(HeaderMap, String)> {
    let arrived = async {
        while heard.lock().unwrap().requests.len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("no more webhooks came");
    heard.lock().unwrap().requests.clone()
}

/// Protects: order, bodies and signatures of a job's events.
#[tokio::test]
async fn events_in_order_and_signed() {
    let bench = Bench::sqlite();
    let queue = bench.open().await;
    let (address, heard) = receiver(&[]).await;
    ended(&queue, "a", &address).await;
    send(&queue);
    let secret = webhooks::secret(&queue).await.unwrap();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!(key.len(), 32);
    let mut bodies = Vec::new();
    for (headers, body) in requests(&heard, 3).await {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(header("webhook-signature"), expected);
        bodies.push(serde_json::from_str::<Value>(&body).unwrap());
    }
    assert_eq!(
        bodies,
        [
            json!({"id": "a", "status": "processing", "output": null, "logs": ""}),
            json!({"id": "a", "status": "processing", "output": ["a.png"], "logs": "line\n"}),
            json!({"id": "a", "status": "succeeded", "output": ["a.png"], "logs": "line\n"}),
        ]
    );
}

/// Protects: `completed` comes again after an answer that may pass, under the same id; other events and answers are final.
#[tokio::test]
async fn failures() {
    let bench = Bench::sqlite();
    let queue = bench.open().await;
    // `start` and `output` fail, and are not sent again; `completed` fails twice.
    let (address, heard) =
        receiver(&[503, 404, 500, 429].map(|code| StatusCode::from_u16(code).unwrap())).await;
    ended(&queue, "a", &address).await;
    send(&queue);
    let ids = requests(&heard, 5).await;
    let ids = ids.iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((ids[2], ids[3]), (ids[3], ids[4]));
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
    // An address that is refused, and one where nobody answers `start`, hold nothing up.
    ended(&queue, "b", "http://private/").await;
    ended(&queue, "c", "not an address").await;
    ended(&queue, "d", &address).await;
    let last = requests(&heard, 8).await.pop().unwrap().1;
    assert!(last.contains("\"d\"") && last.contains("succeeded"), "{last}");
}
