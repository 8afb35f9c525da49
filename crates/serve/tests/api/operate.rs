//! What operators rely on.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::service::{Service, read, table};

/// SHA-256 of "reads", "writes" and "rules".
const TOKENS: &str = "\
    rita read 3566cf23ecb6f832d67d1439e0cb3d05eb7f4ad702c6f478aa96f19812f18e8c
    will write 531995e8b52db462df5a6b23a5f7af4d5c57415a397438b002364edebcdc1e14
    ruth admin 6c621d1a05138a7888d37d9269a9da8e2e11e4aced2f6cfd24b05ab1b9e61bb0
";

/// Protects services on a network: without a token only the health check answers, each token does what its right allows, and refusals have the form
/// of each API.
#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    fs::write(&file, TOKENS).unwrap();
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.token_file = Some(file);
    });
    let none = json!({ "detail": "You did not pass an authentication token" });
    let wrong = json!({ "detail": "You did not pass a valid authentication token", "status": 401, "title": "Unauthenticated" });
    let (reads, writes): (&[_], &[_]) =
        (&[("authorization", "Bearer reads")], &[("authorization", "Token writes")]);
    table(
        &service,
        &[
            ("GET", "/health-check", &[], None, 200, json!({ "status": "READY" })),
            ("GET", "/", &[("accept", "text/html")], None, 200, json!("…")),
            ("GET", "/", &[], None, 401, none.clone()),
            ("GET", "/openapi.json", &[], None, 401, none.clone()),
            ("GET", "/metrics", &[], None, 401, none.clone()),
            ("POST", "/predictions", &[], None, 401, none.clone()),
            ("POST", "/shutdown", &[], None, 401, none),
            ("GET", "/v1/account", &[("authorization", "Bearer invalid")], None, 401, wrong),
            ("GET", "/v1/account", reads, None, 200, json!({ "username": "rita" })),
            (
                "GET",
                "/v1/account",
                &[("authorization", "Basic dTp3cml0ZXM=")],
                None,
                200,
                json!({ "username": "will" }),
            ),
            (
                "POST",
                "/predictions",
                reads,
                None,
                403,
                json!({ "detail": "The token of rita does not allow this" }),
            ),
            (
                "POST",
                "/v1/models/stability-ai/sdxl/predictions",
                writes,
                None,
                201,
                json!({ "status": "starting" }),
            ),
            (
                "POST",
                "/shutdown",
                writes,
                None,
                403,
                json!({ "detail": "The token of will does not allow this" }),
            ),
            ("POST", "/shutdown", &[("authorization", "Bearer rules")], None, 200, json!({})),
        ],
    )
    .await;
    service.ends().unwrap();
}

/// Protects operators who look for a request: each answer has an id, which is the client's if that is one.
#[tokio::test(flavor = "multi_thread")]
async fn request_ids_and_numbers() {
    let service = Service::start();
    let answer = read(service.request("GET", "/v1/account").header("x-request-id", "mine-1")).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let long = "x".repeat(200);
    for (sent, path) in [("two words", "/v1/account"), (long.as_str(), "/nowhere")] {
        let answer = read(service.request("GET", path).header("x-request-id", sent)).await;
        assert_eq!(answer.headers["x-request-id"].len(), 26);
    }
    service.over(&service.prediction(json!({})).await).await;
    let metrics = loop {
        let metrics = service.get("/metrics").await.body.as_str().unwrap().to_owned();
        if metrics.contains("calotype_jobs_ended_total{kind=\"prediction\",status=\"succeeded\"} 1") {
            break metrics;
        }
        tokio::task::yield_now().await;
    };
    for line in [
        "calotype_jobs_waiting{kind=\"prediction\"} 0",
        "calotype_jobs_running{kind=\"training\"} 0",
        "calotype_http_requests_total{method=\"GET\",route=\"/v1/account\",status=\"200\"} 2",
        "calotype_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "calotype_job_total_seconds_count{kind=\"prediction\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Protects people who visit websites: pages of other origins may change nothing, unless the operator named them, and then they may do all.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins() {
    let closed = Service::front();
    let evil: &[(&str, &str)] = &[("origin", "https://evil.example"), ("content-type", "text/plain")];
    table(
        &closed,
        &[
            ("POST", "/predictions", evil, Some("{}"), 403, json!({ "detail": "A page of another origin…" })),
            ("POST", "/v1/predictions", evil, Some("{}"), 403, json!({ "status": 403 })),
            (
                "POST",
                "/v1/models/stability-ai/sdxl/predictions",
                &[("origin", &closed.address)],
                Some("{}"),
                201,
                json!({}),
            ),
        ],
    )
    .await;
    assert_eq!(closed.get("/v1/account").await.headers.get("access-control-allow-origin"), None);
    let open = Service::with(|settings| {
        settings.workers = 0;
        settings.cors = vec!["https://app.example".into()];
    });
    let preflight = open.request("OPTIONS", "/v1/predictions").header("origin", "https://app.example");
    let preflight = preflight.header("access-control-request-method", "POST");
    let allowed = read(preflight.header("access-control-request-headers", "authorization,prefer")).await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(allowed.headers["access-control-allow-headers"], "authorization,prefer");
    let foreign = read(open.request("GET", "/v1/account").header("origin", "https://evil.example")).await;
    assert_eq!(foreign.headers.get("access-control-allow-origin"), None);
}

/// Protects people who visit websites: a website that gives its own name the address of the service reads and changes nothing, unless the service
/// asks for tokens, which the website does not have.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_websites_take() {
    let open = Service::front();
    let evil: &[(&str, &str)] = &[("host", "evil.example:5201"), ("origin", "http://evil.example:5201")];
    let message = "Host evil.example: without --token-file…";
    let (cog, replicate) = (json!({ "detail": message }), json!({ "detail": message, "status": 403 }));
    let openai = json!({ "error": { "message": message } });
    let local: &[(&str, &str)] = &[("host", "localhost:5201"), ("origin", "http://localhost:5201")];
    table(
        &open,
        &[
            ("POST", "/predictions", evil, Some("{}"), 403, cog.clone()),
            ("GET", "/", evil, None, 403, cog.clone()),
            ("GET", "/metrics", evil, None, 403, cog),
            ("GET", "/v1/predictions", evil, None, 403, replicate.clone()),
            ("GET", "/v1/webhooks/default/secret", evil, None, 403, replicate),
            ("POST", "/v1/images/generations", evil, Some("{}"), 403, openai),
            ("GET", "/health-check", evil, None, 200, json!({ "status": "READY" })),
            ("POST", "/v1/models/stability-ai/sdxl/predictions", local, Some("{}"), 201, json!({})),
            ("GET", "/v1/predictions", &[("host", "gpu-box:5201")], None, 200, json!({})),
        ],
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    fs::write(&file, TOKENS).unwrap();
    let guarded = Service::with(|settings| {
        settings.workers = 0;
        settings.token_file = Some(file);
    });
    let reads: &[(&str, &str)] = &[("host", "sdxl.example"), ("authorization", "Bearer reads")];
    table(&guarded, &[("GET", "/v1/predictions", reads, None, 200, json!({}))]).await;
}

/// Protects operators from alarms: clients that hang up within an upload are counted as failures of clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up() {
    let service = Service::front();
    for path in ["/v1/files", "/v1/images/edits"] {
        let mut client = TcpStream::connect(service.address.trim_start_matches("http://")).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n\
             --x\r\nContent-Disposition: form-data; name=\"content\"; filename=\"a\"\r\n\r\nabc"
        );
        client.write_all(request.as_bytes()).unwrap();
        drop(client);
        let line = format!("route=\"{path}\",status=\"400\"}} 1");
        loop {
            let metrics = service.get("/metrics").await.body.as_str().unwrap().to_owned();
            assert!(!metrics.contains("status=\"5"), "{metrics}");
            if metrics.contains(&line) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Protects clients that read errors as JSON: a path that is no text is refused in the form of each API.
#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_no_text() {
    let service = Service::front();
    let message = "The path's percent-encoding is not UTF-8";
    let (cog, replicate) = (json!({ "detail": message }), json!({ "detail": message, "status": 400 }));
    table(
        &service,
        &[
            ("GET", "/predictions/%zz%ff", &[], None, 400, cog.clone()),
            ("PUT", "/predictions/%ff", &[], Some("{}"), 400, cog.clone()),
            ("GET", "/page/%ff", &[], None, 400, cog.clone()),
            ("GET", "/outputs/%ff/%c3", &[], None, 400, cog),
            ("GET", "/v1/predictions/%ff", &[], None, 400, replicate.clone()),
            ("DELETE", "/v1/models/a/%c3", &[], None, 400, replicate),
            ("GET", "/v1/predictions/%zz", &[], None, 404, json!({ "status": 404 })),
            ("GET", "/v1/predictions/%C3%A9", &[], None, 404, json!({ "status": 404 })),
        ],
    )
    .await;
}

/// Protects memory: a body beyond the limit is refused by its length, in the form of each API.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large() {
    let service = Service::front();
    for (path, part) in
        [("/predictions", "The body has more than 100 MiB"), ("/v1/predictions", "The body has more")]
    {
        let body = format!("{{\"input\": {{\"prompt\": \"{}\"}}}}", "x".repeat(100 << 20));
        let answer = service.request("POST", path).body(body).send().await;
        // The service does not read on, so the client may fail to write.
        if let Ok(answer) = answer {
            assert_eq!(answer.status().as_u16(), 413);
            assert!(answer.text().await.unwrap().contains(part));
        }
    }
    let large = json!({ "input": { "image": format!("data:image/png;base64,{}", "A".repeat(8 << 20)) } });
    let taken =
        read(service.request("POST", "/predictions").header("prefer", "respond-async").json(&large)).await;
    assert_eq!(taken.status, 202, "8 MB");
}

/// Protects the jobs of a service that is asked to end: the service takes no new job, finishes the prediction that computes, answers the clients that wait for
/// the prediction or ask for it meanwhile, and leaves the other jobs in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends() {
    let service = Service::start();
    let first = service.request("PUT", "/predictions/first").json(&json!({ "input": { "prompt": "wait" } }));
    let first = tokio::spawn(read(first));
    while service.get("/v1/predictions/first").await.body["status"] != "processing" {
        tokio::task::yield_now().await;
    }
    let second = service.prediction(json!({})).await;
    assert_eq!(service.post("/shutdown", json!({})).await.body, json!({}));
    // A client that knows the service as little as one that was started just now.
    let poll = || async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        read(client.get(format!("{}/v1/predictions/first", service.address))).await
    };
    assert_eq!(poll().await.body["status"], "processing");
    assert_eq!(service.get("/health-check").await.body["status"], "BUSY");
    for path in ["/predictions", "/v1/models/stability-ai/sdxl/predictions", "/v1/images/generations"] {
        let refused = service.post(path, json!({ "prompt": "a" })).await;
        assert_eq!(
            (refused.status, refused.headers["retry-after"].as_str()),
            (503, "5"),
            "{path}: {refused:?}"
        );
    }
    assert_eq!(poll().await.body["status"], "processing");
    service.engine.go_on();
    let first = first.await.unwrap();
    assert_eq!((first.status, &first.body["status"]), (200, &json!("succeeded")), "{first:?}");
    assert_eq!(poll().await.body["status"], "succeeded", "whoever polls hears of the end, too");
    let data = service.data();
    let address = service.address.clone();
    let again = |data: std::path::PathBuf| {
        Service::with(move |settings| (settings.workers, settings.data) = (0, data))
    };
    // Its folder is needed once more.
    let folder = service.ends().unwrap();
    assert!(reqwest::get(&address).await.is_err(), "nobody listens");
    let again = again(data);
    assert_eq!(again.get("/v1/predictions/first").await.body["status"], "succeeded");
    assert_eq!(again.get(&second).await.body["status"], "starting");
    drop(folder);
}
