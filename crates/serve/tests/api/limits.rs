//! What a client may ask for at most.

use std::fs;

use serde_json::json;

use crate::service::{Answer, Service, has, read};

/// SHA-256 of "reads", "writes" and "rules".
const TOKENS: &str = "\
    rita read 3566cf23ecb6f832d67d1439e0cb3d05eb7f4ad702c6f478aa96f19812f18e8c requests=3/h
    will write 531995e8b52db462df5a6b23a5f7af4d5c57415a397438b002364edebcdc1e14 waiting=2
    ruth admin 6c621d1a05138a7888d37d9269a9da8e2e11e4aced2f6cfd24b05ab1b9e61bb0
";
const PREDICTIONS: &str = "/v1/models/stability-ai/sdxl/predictions";

/// A service without a worker, and with these tokens. The folder goes with the test.
fn service() -> (tempfile::TempDir, Service) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    fs::write(&file, TOKENS).unwrap();
    let service = Service::with(|settings| (settings.workers, settings.token_file) = (0, Some(file)));
    (folder, service)
}

async fn ask(service: &Service, method: &str, path: &str, token: &str) -> Answer {
    read(service.request(method, path).bearer_auth(token)).await
}

/// Protects services from a client that asks too often: as many requests as its token allows, refusals among them, then 429 in the form of
/// each API, and each answer says what is left. Others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_token() {
    let (_folder, service) = service();
    let told = |answer: &Answer| {
        let header = |name: &str| answer.headers.get(name).map(String::as_str).unwrap_or_default().to_owned();
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map(header)
    };
    for (method, path, status, remaining) in [
        ("GET", "/v1/account", 200, "2"),
        ("POST", "/v1/predictions", 403, "1"),
        ("GET", "/v1/predictions/none", 404, "0"),
    ] {
        let answer = ask(&service, method, path, "reads").await;
        assert_eq!((answer.status, told(&answer)[1].as_str()), (status, remaining), "{path}: {answer:?}");
    }
    let detail = "Request was throttled. Expected available in 1…";
    let problem = json!({ "status": 429, "title": "Request was throttled", "detail": detail });
    for (path, body) in [
        ("/v1/predictions", problem),
        ("/predictions/one", json!({ "detail": detail })),
        ("/v1/images/generations", json!({ "error": { "code": "rate_limit_exceeded" } })),
    ] {
        let refused = ask(&service, "GET", path, "reads").await;
        assert_eq!(refused.status, 429);
        assert!(has(&refused.body, &body), "{refused:?}");
        let [limit, remaining, reset, after] = told(&refused);
        assert_eq!((limit.as_str(), remaining.as_str()), ("3", "0"));
        assert!((3500..=3600).contains(&reset.parse::<u64>().unwrap()), "{reset}");
        assert!((1100..=1200).contains(&after.parse::<u64>().unwrap()), "{after}");
    }
    assert_eq!(told(&ask(&service, "GET", "/v1/account", "rules").await), ["", "", "", ""]);
    assert_eq!(service.get("/health-check").await.status, 200);
}

/// Protects the queue from a client that fills it alone: so many jobs of a token wait, of all kinds and through all APIs; what is refused is
/// not made, and a job that goes makes room.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_of_a_token() {
    let (_folder, service) = service();
    let first = ask(&service, "POST", PREDICTIONS, "writes").await;
    assert_eq!(first.status, 201);
    let training =
        service.request("PUT", "/trainings/two").bearer_auth("writes").header("prefer", "respond-async");
    let training = training.json(&json!({ "input": { "input_images": "https://x.example/a.zip" } }));
    assert_eq!(read(training).await.status, 202);
    let detail = "At capacity: 2 of your jobs wait, and no more may…";
    for (path, body) in [
        (PREDICTIONS, json!({ "status": 429, "detail": detail })),
        ("/predictions", json!({ "detail": detail })),
    ] {
        let refused = ask(&service, "POST", path, "writes").await;
        assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (429, "5"));
        assert!(has(&refused.body, &body), "{refused:?}");
    }
    assert_eq!(ask(&service, "POST", PREDICTIONS, "rules").await.status, 201);
    let list = ask(&service, "GET", "/v1/predictions", "rules").await.body;
    assert_eq!(list["results"].as_array().unwrap().len(), 2, "nothing was made");
    let cancel = format!("/v1/predictions/{}/cancel", first.body["id"].as_str().unwrap());
    assert_eq!(ask(&service, "POST", &cancel, "writes").await.status, 200);
    assert_eq!(ask(&service, "POST", PREDICTIONS, "writes").await.status, 201);
}

/// Protects memory: large bodies are taken as long as all of them fit, whether or not they say how large they are, and a body counts until
/// its request is answered. What is refused is not made, and small requests get through.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_at_once() {
    let service = Service::with(|settings| (settings.workers, settings.max_bodies) = (0, 1 << 20));
    let large = format!("{{\"input\": {{\"image\": \"data:image/png;base64,{}\"}}}}", "A".repeat(800 << 10));
    let first = service.request("PUT", "/predictions/first").body(large.clone());
    let first = tokio::spawn(read(first));
    while service.get("/v1/predictions/first").await.status != 200 {
        tokio::task::yield_now().await;
    }
    let parts = || {
        large
            .clone()
            .into_bytes()
            .chunks(100 << 10)
            .map(bytes::Bytes::copy_from_slice)
            .map(Ok)
            .collect::<Vec<Result<_, std::io::Error>>>()
    };
    let stream = || reqwest::Body::wrap_stream(futures_util::stream::iter(parts()));
    let form = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n";
    let form = format!("{form}{}\r\n--x--\r\n", "A".repeat(800 << 10));
    let message = "The service has as many large requests at once as it can hold…";
    let is_form = ("content-type", "multipart/form-data; boundary=x");
    for (path, body, header, part) in [
        (
            "/predictions",
            large.clone().into(),
            ("accept", "*/*"),
            json!({ "error": message, "status": "failed" }),
        ),
        ("/predictions", stream(), ("accept", "*/*"), json!({ "error": message })),
        (PREDICTIONS, stream(), ("accept", "*/*"), json!({ "status": 503, "detail": message })),
        ("/v1/images/edits", form.into(), is_form, json!({ "error": { "message": message } })),
    ] {
        let refused = read(service.request("POST", path).header(header.0, header.1).body(body)).await;
        assert_eq!(
            (refused.status, refused.headers["retry-after"].as_str()),
            (503, "5"),
            "{path}: {refused:?}"
        );
        assert!(has(&refused.body, &part), "{refused:?}");
    }
    assert_eq!(service.post(PREDICTIONS, json!({ "input": { "prompt": "a" } })).await.status, 201);
    assert_eq!(service.get("/v1/predictions").await.body["results"].as_array().unwrap().len(), 2);
    service.post("/predictions/first/cancel", json!({})).await;
    assert_eq!(first.await.unwrap().body["status"], "canceled");
    let later = service.request("POST", PREDICTIONS).body(large);
    assert_eq!(read(later).await.status, 201);
}
