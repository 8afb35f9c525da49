//! Cog's API.

use serde_json::{Value, json};

use crate::service::{PNG, Service, has, read, table};

const ASYNC: &[(&str, &str)] = &[("prefer", "respond-async")];

fn png_uri() -> String {
    use base64::Engine;
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(PNG))
}

/// Protects Cog's clients: a prediction is answered with its pictures, whatever the body leaves out, and failures are answers too.
#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_are_waited_for() {
    let service = Service::start();
    let done = json!({ "status": "succeeded", "output": [png_uri()], "logs": "Using seed: 1\n…" });
    table(
        &service,
        &[
            ("POST", "/predictions", &[], None, 200, done.clone()),
            ("POST", "/predictions", &[], Some(""), 200, done.clone()),
            ("POST", "/predictions", &[], Some("null"), 200, done.clone()),
            ("POST", "/predictions", &[], Some(r#"{"input": null}"#), 200, json!({ "input": {} })),
            ("POST", "/predictions", &[], Some(r#"{"input": {"prompt": "a", "colour": "red"}}"#), 200, json!({ "input": {"prompt": "a"} })),
            ("POST", "/predictions", &[], Some(r#"{"id": "my-pred-123"}"#), 200, json!({ "id": "my-pred-123" })),
            ("PUT", "/predictions/mine.1", &[], Some(r#"{"input": {"num_outputs": 2}}"#), 200, json!({ "id": "mine.1", "output": [png_uri(), png_uri()] })),
            // Made once, answered again.
            ("PUT", "/predictions/mine.1", &[], Some(r#"{"input": {"num_outputs": 9}}"#), 200, json!({ "output": [png_uri(), png_uri()] })),
            ("GET", "/predictions/mine.1", &[], None, 200, json!({ "status": "succeeded" })),
            ("POST", "/predictions", &[("prefer", "respond-async, wait")], None, 200, done),
            ("POST", "/predictions", &[], Some(r#"{"input": {"prompt": "fail"}}"#), 200, json!({ "status": "failed", "error": "it broke" })),
            (
                "POST",
                "/predictions",
                &[],
                Some(r#"{"id": "bad", "input": {"prompt": "bad mask"}}"#),
                422,
                json!({ "id": "bad", "status": "failed", "error": "mask: not a picture", "logs": "Using seed: 1\n" }),
            ),
        ],
    )
    .await;
    let body = service.post("/predictions", json!({})).await.body;
    assert!(body["metrics"]["predict_time"].is_number() && body["completed_at"].is_string(), "{body}");
    assert_eq!(body["version"].as_str().unwrap().len(), 64);
    assert_eq!(body.get("error"), None);
}

/// Protects Cog's clients: a wrong request is refused with the field in FastAPI's place, and makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused() {
    let service = Service::front();
    let at = |field: &str, msg: &str| json!({ "detail": [{ "loc": ["body", "input", field], "msg": msg, "type": "value_error" }] });
    let of_body = |field: &str, msg: &str| json!({ "detail": [{ "loc": ["body", field], "msg": msg }] });
    let sse: &[(&str, &str)] = &[("accept", "text/event-stream")];
    table(
        &service,
        &[
            ("POST", "/predictions", &[], Some(r#"{"input": {"width": 63}}"#), 422, at("width", "expected a multiple of 8 from 8 to 4096, found 63")),
            ("POST", "/predictions", &[], Some(r#"{"input": {"guidance_scale": 0.5}}"#), 422, at("guidance_scale", "expected a number from 1 to 50, found 0.5")),
            ("POST", "/predictions", &[], Some(r#"{"input": {"scheduler": "UniPC"}}"#), 422, at("scheduler", "expected one of DDIM…")),
            ("POST", "/predictions", &[], Some(r#"{"input": {"mask": "https://x.example/m.png"}}"#), 422, at("mask", "expected an image beside it")),
            ("POST", "/predictions", &[], Some(r#"{"input": {"seed": "a", "width": 1}}"#), 422, json!({ "detail": [{ "loc": ["body", "input", "seed"] }, { "loc": ["body", "input", "width"] }] })),
            (
                "POST",
                "/trainings",
                &[],
                Some("{}"),
                422,
                json!({ "detail": [{ "loc": ["body", "input", "input_images"], "msg": "Field required", "type": "value_error.missing" }] }),
            ),
            ("POST", "/predictions", &[], Some(r#"{"input": []}"#), 422, of_body("input", "expected an object, found []")),
            ("POST", "/predictions", &[], Some("{"), 422, json!({ "detail": [{ "loc": ["body"], "msg": "expected JSON: …" }] })),
            ("POST", "/predictions", &[], Some("[]"), 422, json!({ "detail": [{ "loc": ["body"] }] })),
            ("POST", "/predictions", &[], Some(r#"{"id": "../x"}"#), 422, of_body("id", "expected up to…")),
            ("POST", "/predictions", &[], Some(r#"{"id": 7}"#), 422, of_body("id", "expected text, found 7")),
            ("PUT", "/predictions/url-id", &[], Some(r#"{"id": "body-id"}"#), 422, of_body("id", "prediction ID must match the ID supplied in the URL")),
            ("POST", "/predictions", &[], Some(r#"{"webhook": "ftp://x"}"#), 422, of_body("webhook", "expected an http or https URL…")),
            ("POST", "/predictions", &[], Some(r#"{"webhook": "http://169.254.169.254/"}"#), 422, of_body("webhook", "169.254.169.254…")),
            ("POST", "/predictions", &[], Some(r#"{"webhook_events_filter": ["end"]}"#), 422, of_body("webhook_events_filter", "expected a list of events…")),
            ("POST", "/trainings", sse, Some(r#"{"input": {"input_images": "https://x.example/a.zip"}}"#), 406, json!({ "error": "trainings have…" })),
            ("POST", "/predictions/none/cancel", &[], None, 404, json!({})),
            ("GET", "/predictions/none", &[], None, 404, json!({ "detail": "Not Found" })),
            ("DELETE", "/predictions", &[], None, 405, json!({ "detail": "Method Not Allowed" })),
            ("GET", "/nowhere", &[], None, 404, json!({ "detail": "Not Found" })),
        ],
    )
    .await;
    let list = service.get("/v1/predictions").await.body;
    assert_eq!(list["results"], json!([]), "nothing was made");
}

/// Protects clients that do not wait: they have their answer at once, a second PUT finds the first, cancel wins, and a full queue is
/// what Cog calls busy.
#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_nobody_waits_for() {
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.max_queue = 2;
    });
    let busy = json!({ "status": "failed", "error": "At capacity…" });
    table(
        &service,
        &[
            (
                "POST",
                "/predictions",
                ASYNC,
                Some(r#"{"id": "one"}"#),
                202,
                json!({ "id": "one", "status": "starting" }),
            ),
            ("PUT", "/predictions/two", ASYNC, None, 202, json!({ "id": "two", "status": "starting" })),
            (
                "PUT",
                "/predictions/two",
                &[],
                None,
                202,
                json!({ "id": "two", "status": "starting", "input": {} }),
            ),
            ("POST", "/predictions", &[], None, 409, busy.clone()),
            (
                "GET",
                "/health-check",
                &[],
                None,
                200,
                json!({ "status": "BUSY", "setup": { "status": "succeeded" } }),
            ),
            (
                "PUT",
                "/trainings/two",
                &[],
                Some(r#"{"input": {"input_images": "https://x.example/a.zip"}}"#),
                422,
                json!({ "detail": [{ "loc": ["body", "id"] }] }),
            ),
            (
                "POST",
                "/predictions/two/cancel",
                &[("content-type", "application/json")],
                None,
                200,
                json!({}),
            ),
            ("POST", "/predictions/two/cancel", &[], None, 200, json!({})),
            ("PUT", "/predictions/two", &[], None, 200, json!({ "status": "canceled" })),
            (
                "GET",
                "/health-check",
                &[],
                None,
                200,
                json!({ "status": "READY", "version": { "coglet": "0.9.5" } }),
            ),
        ],
    )
    .await;
}

/// Protects workers from work that nobody wants: a client that hangs up cancels what it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up() {
    let service = Service::start();
    let request =
        service.request("POST", "/predictions").json(&json!({ "id": "long", "input": { "prompt": "wait" } }));
    let asking = tokio::spawn(request.send());
    while service.get("/v1/predictions/long").await.body["status"] != "processing" {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert_eq!(service.over("/v1/predictions/long").await["status"], "canceled");
}

/// Protects trainings: their weights have a URL, which needs no token, and their results are read like those of predictions.
#[tokio::test(flavor = "multi_thread")]
async fn trainings() {
    let service = Service::start();
    let input = json!({ "input_images": "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==" });
    let done = service.post("/trainings", json!({ "input": input })).await;
    assert_eq!((done.status, &done.body["status"]), (200, &json!("succeeded")), "{done:?}");
    let weights = done.body["output"]["weights"].as_str().unwrap();
    assert!(weights.starts_with(&format!("{}/outputs/jobs/", service.address)), "{weights}");
    assert_eq!(read(service.request("GET", weights)).await.body, "weights");
}

/// Protects programs that look for their way: the root names the rest, browsers get the page, and the document describes our requests.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_and_the_document() {
    let service = Service::front();
    let root = service.get("/").await.body;
    let names: Vec<&str> = root.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "cog_version",
        "docs_url",
        "openapi_url",
        "shutdown_url",
        "healthcheck_url",
        "predictions_url",
        "predictions_idempotent_url",
        "predictions_cancel_url",
        "trainings_url",
        "trainings_idempotent_url",
        "trainings_cancel_url",
    ];
    assert_eq!(names, expected);
    let page = read(service.request("GET", "/").header("accept", "text/html,*/*")).await;
    assert!(page.headers["content-type"].starts_with("text/html"), "{page:?}");
    let document = service.get("/openapi.json").await.body;
    assert!(has(&document, &json!({ "openapi": "3.0.2", "info": { "title": "Cog" } })));
    assert!(document["components"]["schemas"]["TrainingInput"]["properties"]["input_images"].is_object());
    assert!(matches!(&document["paths"], Value::Object(paths) if paths.len() == 9));
}
