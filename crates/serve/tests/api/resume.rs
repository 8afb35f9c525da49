//! Trainings that go on from others.

use serde_json::{Value, json};

use crate::service::{Answer, Service, has};

const SET: &str = "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

async fn train(service: &Service, token: &str) -> String {
    let versions = service.get("/v1/models/stability-ai/sdxl/versions").await.body;
    let version = versions["results"][0]["id"].as_str().unwrap();
    let input = json!({ "input_images": SET, "token_string": token, "caption_prefix": format!("a {token}") });
    let path = format!("/v1/models/stability-ai/sdxl/versions/{version}/trainings");
    let made = service.post(&path, json!({ "destination": "me/fox", "input": input })).await;
    assert_eq!(made.status, 201, "{made:?}");
    format!("/v1/trainings/{}", made.body["id"].as_str().unwrap())
}

fn refused(answer: &Answer, status: u16, detail: &str) {
    let said = answer.body["detail"].as_str().unwrap_or_default();
    assert!(answer.status == status && said.contains(detail), "{answer:?}");
}

/// Protects the work of a training that was canceled: one that resumes it has its input and its destination, and is known to do so. What cannot be
/// resumed is refused with a line that says why, and makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_training_is_resumed() {
    let service = Service::start();
    let path = train(&service, "wait").await;
    let asked = &service;
    let resume = |path: &str| {
        let path = format!("{path}/resume");
        async move { asked.post(&path, Value::Null).await }
    };
    service.begun(&path).await;
    refused(&resume(&path).await, 409, "goes on");
    let waits = train(&service, "waits").await;
    service.post(&format!("{waits}/cancel"), Value::Null).await;
    refused(&resume(&waits).await, 422, "has no checkpoint");
    let checkpoints = service.data().join("files/trainings").join(path.rsplit('/').next().unwrap());
    while !checkpoints.join("checkpoints/000001-0001.json").exists() {
        tokio::task::yield_now().await;
    }
    service.post(&format!("{path}/cancel"), Value::Null).await;
    let made = resume(&path).await;
    assert_eq!(made.status, 201, "{made:?}");
    let part = json!({ "status": "starting", "destination": "me/fox",
        "input": { "input_images": SET, "token_string": "wait" } });
    assert!(has(&made.body, &part), "{made:?}");
    // One that got no further than the checkpoint that it began from is resumed from there.
    let second = format!("/v1/trainings/{}", made.body["id"].as_str().unwrap());
    service.post(&format!("{second}/cancel"), Value::Null).await;
    service.engine.go_on();
    let third = resume(&second).await.body;
    let done = service.over(&format!("/v1/trainings/{}", third["id"].as_str().unwrap())).await;
    assert!(
        done["output"]["version"].as_str().is_some_and(|version| version.starts_with("me/fox:")),
        "{done}"
    );
    refused(&resume(&format!("/v1/trainings/{}", done["id"].as_str().unwrap())).await, 409, "has succeeded");
    assert_eq!(resume("/v1/trainings/none").await.status, 404);
    assert_eq!(service.get("/v1/trainings").await.body["results"].as_array().unwrap().len(), 4);
}
