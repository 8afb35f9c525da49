//! Preparations: what a training does with its pictures before it trains.

use serde_json::json;

use crate::service::{PNG, Service, has, read, table};

/// An empty zip file.
const SET: &str = "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

/// Protects people before they spend anything: a preparation answers as predictions do; its set and its pictures have URLs, whatever the
/// client, with what the training will take. Replicate's lists do not have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_from_creation_to_end() {
    let service = Service::start();
    let made =
        service.post("/v1/preparations", json!({ "input": { "input_images": SET, "unknown": 1 } })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/preparations/{id}");
    let url = format!("{}{path}", service.address);
    let part = json!({ "status": "starting", "input": { "input_images": SET }, "output": null, "logs": "warning: input.unknown…", "error": null,
        "urls": { "get": url, "cancel": format!("{url}/cancel") } });
    assert!(has(&made.body, &part), "{}", made.body);
    let done = service.over(&format!("{path}?file_urls=true")).await;
    let files = "/outputs/jobs/…";
    let part = json!({ "status": "succeeded", "output": {
        "set": files, "contact_sheet": files, "warnings": [],
        "pictures": [{ "name": "a.png", "picture": files, "mask": files, "caption": "a photo of TOK", "size": [1, 1],
            "upscaled": true, "warnings": ["small"] }],
        "forecast": { "steps": 1000, "seconds": 3600.0, "bytes": 1 << 30 },
    } });
    assert!(has(&done, &part), "{done}");
    let mask =
        service.request("GET", done["output"]["pictures"][0]["mask"].as_str().unwrap()).send().await.unwrap();
    assert_eq!((mask.status().as_u16(), mask.bytes().await.unwrap().as_ref()), (200, PNG));
    let absolute = service.get(&path).await.body["output"]["set"].clone();
    assert!(absolute.as_str().unwrap().starts_with(&service.address), "{absolute}");
    for list in ["/v1/predictions", "/v1/trainings"] {
        assert_eq!(service.get(list).await.body["results"], json!([]), "{list}");
    }
    let events =
        service.request("GET", &format!("/events/preparation/{id}?file_urls=true")).send().await.unwrap();
    let events = events.text().await.unwrap();
    assert!(events.contains("event: completed") && events.contains("contact_sheet"), "{events}");
}

/// Protects the queue: a preparation without pictures is refused by the field, and one that waits is canceled.
#[tokio::test(flavor = "multi_thread")]
async fn refused_and_canceled() {
    let service = Service::start();
    let missing = json!({ "status": 422, "invalid_fields": [{ "field": "input.input_images", "description": "Field required" }] });
    let none = json!({ "status": 404, "detail": "There is no preparation none" });
    table(
        &service,
        &[
            ("POST", "/v1/preparations", &[], Some(r#"{"input": {}}"#), 422, missing),
            ("GET", "/v1/preparations/none", &[], None, 404, none.clone()),
            ("POST", "/v1/preparations/none/cancel", &[], None, 404, none),
        ],
    )
    .await;
    let input = json!({ "input_images": SET, "token_string": "wait", "caption_prefix": "a photo of wait" });
    let made = service.post("/v1/preparations", json!({ "input": input })).await;
    let path = format!("/v1/preparations/{}", made.body["id"].as_str().unwrap());
    service.begun(&path).await;
    let canceled = read(service.request("POST", &format!("{path}/cancel"))).await;
    assert_eq!((canceled.status, &canceled.body["status"]), (200, &json!("canceled")));
    let other = path.replace("preparations", "trainings");
    assert_eq!(service.get(&other).await.status, 404, "a preparation is no training");
}
