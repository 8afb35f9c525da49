//! Replicate's API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::service::{PNG, Service, has, read, table};

const ALIAS: &str = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b";
const SDXL: &str = "/v1/models/stability-ai/sdxl";
/// An empty zip file.
const SET: &str = "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

fn png_uri() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(PNG))
}

/// Protects Replicate's clients: without a wish to wait, a create answers `starting`, whatever the worker does; then the job is there under
/// its URL, with all that the strictest of them requires.
#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_from_creation_to_end() {
    let service = Service::start();
    let body = json!({ "version": ALIAS, "input": { "prompt": "a", "unknown": 1 }, "webhook_events_filter": ["completed"] });
    let made = service.post("/v1/predictions", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 26 && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{id}");
    let url = format!("{}/v1/predictions/{id}", service.address);
    let part = json!({
        "status": "starting", "version": ALIAS, "model": "stability-ai/sdxl", "input": { "prompt": "a" }, "output": null,
        "error": null, "logs": "warning: input.unknown is not a field of this model, and was left out.\n", "metrics": {}, "source": "api", "data_removed": false, "started_at": null, "completed_at": null,
        "urls": { "get": url, "cancel": format!("{url}/cancel") },
    });
    assert!(has(&made.body, &part), "{}", made.body);
    assert!(made.body["created_at"].as_str().unwrap().ends_with('Z'));
    assert!(made.body["urls"].get("stream").is_none());
    assert_eq!(made.body["input"].get("unknown"), None);
    assert_eq!(made.headers.get("preference-applied"), None);
    let done = service.over(&url).await;
    assert!(has(&done, &json!({ "status": "succeeded", "output": [png_uri()], "version": ALIAS })), "{done}");
    assert!(
        done["metrics"]["predict_time"].is_number() && done["metrics"]["total_time"].is_number(),
        "{done}"
    );
    // In lists, pictures have URLs, which answer without a token.
    let listed = service.get("/v1/predictions").await.body["results"][0]["output"][0].clone();
    let picture = service.request("GET", listed.as_str().unwrap()).send().await.unwrap();
    assert_eq!((picture.status().as_u16(), picture.bytes().await.unwrap().as_ref()), (200, PNG));
    // The page's URLs are relative to where it comes from.
    let of_page = service.get(&format!("/v1/predictions/{id}?file_urls=true")).await.body;
    assert!(of_page["output"][0].as_str().unwrap().starts_with("/outputs/jobs/"), "{of_page}");
    assert_eq!(service.get(SDXL).await.body["run_count"], 1);
}

/// Protects clients behind a public URL: its https is what they take for files.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_url() {
    let service = Service::with(|settings| settings.public_url = Some("https://sdxl.example/base/".into()));
    let path = service.prediction(json!({})).await;
    let done = service.over(&path).await;
    assert!(
        done["output"][0].as_str().unwrap().starts_with("https://sdxl.example/base/outputs/jobs/"),
        "{done}"
    );
    assert_eq!(done["urls"]["get"], format!("https://sdxl.example/base{path}"));
}

/// Protects `run()`: who waits gets the result, or `starting` when the wait ends, which the header says; nothing is made twice.
#[tokio::test(flavor = "multi_thread")]
async fn waiting() {
    let service = Service::start();
    let create = |prefer: &'static str, prompt: &'static str| {
        let request =
            service.request("POST", "/v1/models/stability-ai/sdxl/predictions").header("prefer", prefer);
        read(request.json(&json!({ "input": { "prompt": prompt } })))
    };
    let done = create("wait", "a").await;
    assert_eq!(
        (done.status, &done.body["status"], &done.body["output"][0]),
        (201, &json!("succeeded"), &json!(png_uri()))
    );
    assert_eq!(done.headers["preference-applied"], "wait");
    let failed = create("wait=30", "fail").await;
    assert!(
        has(&failed.body, &json!({ "status": "failed", "error": "it broke", "output": null })),
        "{failed:?}"
    );
    let late = create("wait=0", "wait").await;
    assert_eq!(
        (&late.body["status"], late.headers["preference-applied"].as_str()),
        (&json!("starting"), "wait=0")
    );
    let path = format!("/v1/predictions/{}", late.body["id"].as_str().unwrap());
    service.begun(&path).await;
    // JavaScript's client says JSON, and sends nothing.
    let cancel =
        service.request("POST", &format!("{path}/cancel")).header("content-type", "application/json");
    let canceled = read(cancel).await;
    assert_eq!((canceled.status, &canceled.body["status"]), (200, &json!("canceled")));
    assert_eq!(service.post(&format!("{path}/cancel"), json!({})).await.body["status"], "canceled");
    assert_eq!(service.get("/v1/predictions").await.body["results"].as_array().unwrap().len(), 3);
}

/// Protects clients from jobs that they did not mean: each refusal names its field, in the form of the API, and makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused() {
    let service = Service::front();
    let field = |name: &str, what: &str| {
        json!({ "title": "Input validation failed", "status": 422, "detail": format!("- {name}: {what}…"),
            "invalid_fields": [{ "field": name, "description": format!("{what}…") }] })
    };
    let problem = |status: u16, detail: &str| json!({ "status": status, "detail": detail });
    let training = format!("{SDXL}/versions/{ALIAS}/trainings");
    let after: &[(&str, &str)] = &[("cancel-after", "1s")];
    table(
        &service,
        &[
            (
                "POST",
                "/v1/predictions",
                &[],
                Some("{}"),
                422,
                field("version", "expected the id of a version"),
            ),
            (
                "POST",
                "/v1/predictions",
                &[],
                Some(r#"{"version": "abc"}"#),
                422,
                field("version", "The specified version does not exist"),
            ),
            (
                "POST",
                "/v1/predictions",
                &[],
                Some(r#"{"version": "other/sdxl:39ed52f2"}"#),
                422,
                field("version", ""),
            ),
            (
                "POST",
                "/v1/predictions",
                &[],
                Some(r#"{"version": "stability-ai/sdxl", "input": {"width": 63}}"#),
                422,
                field("input.width", "expected a multiple of 8"),
            ),
            (
                "POST",
                "/v1/predictions",
                after,
                Some(r#"{"version": "stability-ai/sdxl"}"#),
                422,
                field("Cancel-After", "expected 5 s to 7 days"),
            ),
            (
                "POST",
                "/v1/predictions",
                &[],
                Some(r#"{"version": "stability-ai/sdxl", "webhook": "http://localhost:99999/"}"#),
                422,
                field("webhook", "not a URL"),
            ),
            (
                "POST",
                "/v1/models/no/where/predictions",
                &[],
                Some("{}"),
                404,
                problem(404, "There is no model no/where"),
            ),
            (
                "POST",
                &training,
                &[],
                Some(r#"{"input": {}}"#),
                422,
                field("destination", "expected owner/name"),
            ),
            (
                "POST",
                &training,
                &[],
                Some(r#"{"destination": "<x>", "input": {}}"#),
                404,
                problem(404, "destination: expected owner/name of small letters, digits and -_.…"),
            ),
            (
                "POST",
                &training,
                &[],
                Some(r#"{"destination": "me/Fox", "input": {}}"#),
                422,
                field("destination", "expected owner/name of small letters, digits and -_., each"),
            ),
            (
                "POST",
                &training,
                &[],
                Some(r#"{"destination": "me/fox", "input": {}}"#),
                422,
                field("input.input_images", "Field required"),
            ),
            (
                "POST",
                &format!("{SDXL}/versions/none/trainings"),
                &[],
                Some("{}"),
                404,
                problem(404, "There is no version none of stability-ai/sdxl"),
            ),
            ("GET", "/v1/models/me/fox", &[], None, 404, problem(404, "There is no model me/fox")),
            ("GET", "/v1/predictions/none", &[], None, 404, problem(404, "There is no prediction none")),
            ("POST", "/v1/trainings/none/cancel", &[], None, 404, problem(404, "There is no training none")),
            ("GET", "/v1/predictions?cursor=zz", &[], None, 422, field("cursor", "expected the cursor")),
            (
                "GET",
                "/v1/predictions?created_after=today",
                &[],
                None,
                422,
                field("created_after", "expected a time"),
            ),
            ("GET", "/v1/nothing", &[], None, 404, problem(404, "Not Found")),
            ("DELETE", "/v1/predictions", &[], None, 405, problem(405, "Method Not Allowed")),
            ("PUT", "/v1/models", &[], None, 405, problem(405, "expected GET, POST or QUERY")),
            (
                "GET",
                "/v1/deployments",
                &[],
                None,
                404,
                problem(404, "This service has no deployments; make predictions with a model or a version"),
            ),
            ("POST", "/v1/deployments/a/b/predictions", &[], None, 404, json!({ "status": 404 })),
        ],
    )
    .await;
    let refused = service.get("/v1/predictions/none").await;
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    for path in ["/v1/predictions", "/v1/trainings"] {
        assert_eq!(service.get(path).await.body["results"], json!([]), "{path}");
    }
}

/// Protects the queue: what has no place is refused at no cost, and clients are told when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue() {
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.max_queue = 1;
    });
    service.prediction(json!({})).await;
    let refused = service.post("/v1/predictions", json!({ "version": ALIAS })).await;
    assert!(has(&refused.body, &json!({ "status": 429, "title": "Request was throttled" })), "{refused:?}");
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 0);
}

/// Protects whoever goes through old jobs: pages follow one another, and filters go along.
#[tokio::test(flavor = "multi_thread")]
async fn lists() {
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.max_queue = 1000;
    });
    let mut made = Vec::new();
    for _ in 0..102 {
        made.push(service.prediction(json!({})).await.replace("/v1/predictions/", ""));
    }
    service.post("/v1/predictions?file_urls=true", json!({ "version": ALIAS })).await;
    let ids = |page: &Value| -> Vec<String> {
        page["results"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = service.get("/v1/predictions?source=api").await.body;
    let next = first["next"].as_str().unwrap();
    assert!(next.starts_with(&format!("{}/v1/predictions?cursor=", service.address)), "{next}");
    let second = service.get(next).await.body;
    assert_eq!(
        (ids(&first).len(), ids(&second).len(), &second["next"], &first["previous"]),
        (100, 2, &Value::Null, &Value::Null)
    );
    let mut all = [ids(&first), ids(&second)].concat();
    all.reverse();
    // Several of one millisecond are in any order.
    made.sort();
    all.sort();
    assert_eq!(all, made);
    assert_eq!(ids(&service.get(second["previous"].as_str().unwrap()).await.body), ids(&first));
    assert_eq!(ids(&service.get("/v1/predictions?source=web").await.body).len(), 1);
    let none = service.get("/v1/predictions?created_before=2001-01-01T00:00:00%2B01:00").await.body;
    assert_eq!(ids(&none).len(), 0);
}

/// Protects trained weights: a training makes its destination, whose versions are listed, make predictions, and can be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_training_makes_a_version() {
    let service = Service::start();
    let path = format!("{SDXL}/versions/{ALIAS}/trainings");
    let body = json!({ "destination": "me/fox", "input": { "input_images": SET } });
    let made = service.post(&path, body).await;
    let part = json!({ "status": "starting", "version": ALIAS, "output": null, "destination": "me/fox" });
    assert!(made.status == 201 && has(&made.body, &part), "{made:?}");
    let done = service.over(&format!("/v1/trainings/{}", made.body["id"].as_str().unwrap())).await;
    let version = done["output"]["version"].as_str().unwrap_or_else(|| panic!("{done}"));
    let id = version.strip_prefix("me/fox:").unwrap();
    let weights = done["output"]["weights"].as_str().unwrap();
    assert_eq!(read(service.request("GET", weights)).await.body, "weights");

    let model = service.get("/v1/models/me/fox").await.body;
    assert!(has(&model, &json!({ "owner": "me", "name": "fox", "latest_version": { "id": id } })), "{model}");
    let versions = service.get("/v1/models/me/fox/versions").await.body;
    assert!(has(&versions, &json!({ "results": [{ "id": id }], "next": null })), "{versions}");
    assert!(versions["results"][0]["openapi_schema"]["components"]["schemas"]["Input"].is_object());
    for name in [id, version, "me/fox"] {
        let made = service.post("/v1/predictions", json!({ "version": name, "input": {} })).await;
        assert!(has(&made.body, &json!({ "version": id, "model": "me/fox" })), "{made:?}");
        assert_eq!(
            service.over(&format!("/v1/predictions/{}", made.body["id"].as_str().unwrap())).await["status"],
            "succeeded"
        );
    }
    let again = service
        .post(&format!("/v1/models/me/fox/versions/{id}/trainings"), json!({ "destination": "me/fox" }))
        .await;
    assert!(has(&again.body, &json!({ "invalid_fields": [{ "field": "version" }] })), "{again:?}");
    table(
        &service,
        &[
            ("DELETE", "/v1/models/me/fox", &[], None, 409, json!({ "status": 409 })),
            ("DELETE", &format!("/v1/models/me/fox/versions/{id}"), &[], None, 202, json!("")),
            ("GET", &format!("/v1/models/me/fox/versions/{id}"), &[], None, 404, json!({ "status": 404 })),
            ("DELETE", "/v1/models/me/fox", &[], None, 204, json!("")),
            ("GET", "/v1/models/me/fox", &[], None, 404, json!({ "status": 404 })),
            ("DELETE", SDXL, &[], None, 403, json!({ "status": 403 })),
            ("DELETE", &format!("{SDXL}/versions/{ALIAS}"), &[], None, 403, json!({ "status": 403 })),
        ],
    )
    .await;
}

/// Protects clients that look around: models are made, found and changed, the published versions are there under their own ids, both
/// prefixes lead to the same, and OpenAI's clients can read the list.
#[tokio::test(flavor = "multi_thread")]
async fn models_and_the_rest() {
    let service = Service::with(|settings| {
        settings.workers = 0;
        settings.price_per_second = 0.000725;
    });
    let model = r#"{"owner": "me", "name": "cat", "visibility": "private", "hardware": "cpu", "description": "Whiskers"}"#;
    let secret = service.get("/v1/webhooks/default/secret").await.body;
    let key = secret["key"].as_str().unwrap().strip_prefix("whsec_").unwrap();
    assert_eq!(STANDARD.decode(key).unwrap().len(), 32);
    table(
        &service,
        &[
            (
                "POST",
                "/v1/models",
                &[],
                Some(model),
                201,
                json!({ "owner": "me", "name": "cat", "visibility": "private", "latest_version": null }),
            ),
            ("POST", "/v1/models", &[], Some(model), 409, json!({ "status": 409 })),
            (
                "POST",
                "/v1/models",
                &[],
                Some(r#"{"owner": "me"}"#),
                422,
                json!({ "invalid_fields": [{ "field": "name" }] }),
            ),
            ("GET", "/v1/v1/models/me/cat", &[], None, 200, json!({ "description": "Whiskers" })),
            ("QUERY", "/v1/models", &[], Some("whisk"), 200, json!({ "results": [{ "name": "cat" }] })),
            (
                "QUERY",
                "/v1/models",
                &[],
                Some("\"SDXL stability\""),
                200,
                json!({ "results": [{ "name": "sdxl" }] }),
            ),
            (
                "GET",
                "/v1/search?query=cat&limit=3",
                &[],
                None,
                200,
                json!({ "query": "cat", "models": [{ "model": { "name": "cat" } }] }),
            ),
            (
                "PATCH",
                "/v1/models/me/cat",
                &[],
                Some(r#"{"description": "Claws", "readme": "<b>hi</b>"}"#),
                200,
                json!({ "description": "Claws" }),
            ),
            (
                "PATCH",
                "/v1/models/me/cat",
                &[],
                Some(r#"{"visibility": "secret"}"#),
                422,
                json!({ "invalid_fields": [{ "field": "visibility" }] }),
            ),
            ("GET", "/v1/models/me/cat/readme", &[], None, 200, json!("<b>hi</b>")),
            ("GET", "/v1/models/me/cat/examples", &[], None, 200, json!({ "results": [] })),
            (
                "POST",
                "/v1/models/me/cat/predictions",
                &[],
                Some("{}"),
                404,
                json!({ "detail": "The model me/cat has no version yet" }),
            ),
            ("GET", &format!("{SDXL}/versions/{ALIAS}"), &[], None, 200, json!({ "id": ALIAS })),
            ("GET", &format!("/v1/models/me/cat/versions/{ALIAS}"), &[], None, 404, json!({ "status": 404 })),
            ("GET", "/v1/models/dall-e-3", &[], None, 200, json!({ "id": "dall-e-3", "object": "model" })),
            ("GET", "/v1/account", &[], None, 200, json!({ "type": "user", "username": "local" })),
            (
                "GET",
                "/v1/hardware",
                &[],
                None,
                200,
                json!([{ "sku": "calotype", "price_per_second": 0.000725 }]),
            ),
            ("GET", "/v1/collections", &[], None, 200, json!({ "results": [{ "slug": "text-to-image" }] })),
            (
                "GET",
                "/v1/collections/text-to-image",
                &[],
                None,
                200,
                json!({ "models": [{ "name": "sdxl" }] }),
            ),
            ("GET", "/v1/collections/none", &[], None, 404, json!({ "status": 404 })),
        ],
    )
    .await;
    let list = service.get("/v1/models").await.body;
    assert_eq!(list["object"], "list");
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["me/cat", "stability-ai/sdxl", "dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini"]
    );
    assert_eq!(list["results"].as_array().unwrap().len(), 2);
}

/// Protects budgets: a job that takes longer than its client allowed ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_time_is_over() {
    let service = Service::front();
    let create = service.request("POST", "/v1/predictions").header("cancel-after", "5s");
    let made = read(create.json(&json!({ "version": ALIAS }))).await;
    assert_eq!(made.status, 201, "{made:?}");
}
