//! Events of jobs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::service::{PNG, Service, has};

/// The events of a stream, up to its end.
async fn events(request: reqwest::RequestBuilder) -> Vec<(String, Value)> {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    read(&answer.text().await.unwrap())
}

fn read(text: &str) -> Vec<(String, Value)> {
    let read = |event: &str| {
        let field =
            |name: &str| event.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        Some((field("event:")?, serde_json::from_str(&field("data:")?).unwrap()))
    };
    text.split("\n\n").filter_map(read).collect()
}

/// Protects the page's previews: they come with their bytes, since the file is removed by the next preview or the end of the job, and a page
/// that is a moment late would ask for what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn previews_come_with_their_bytes() {
    let service = Service::start();
    let path = service.prediction(json!({ "prompt": "wait" })).await;
    let id = path.rsplit('/').next().unwrap();
    let mut answer =
        service.request("GET", &format!("/events/prediction/{id}?file_urls=true")).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("event: preview") || !text.ends_with("\n\n") {
        text += std::str::from_utf8(&answer.chunk().await.unwrap().expect("the job goes on")).unwrap();
    }
    service.engine.go_on();
    let (_, preview) = read(&text).into_iter().find(|(name, _)| name == "preview").unwrap();
    let url = format!("data:image/png;base64,{}", STANDARD.encode(PNG));
    assert_eq!(preview, json!({ "index": 0, "url": url }));
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// Protects the page's progress: a stream that begins before the job tells of its start, its steps and its pictures, and ends with the job.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_prediction() {
    let service = Service::start();
    let path = service.prediction(json!({ "prompt": "wait" })).await;
    service.begun(&path).await;
    let id = path.rsplit('/').next().unwrap();
    let stream = service.request("GET", &format!("/events/prediction/{id}?file_urls=true"));
    let mut asking = tokio::spawn(events(stream));
    // The first events are on their way while the job waits.
    let early = tokio::time::timeout(std::time::Duration::from_millis(1), &mut asking).await;
    assert!(early.is_err(), "the stream goes on");
    service.engine.go_on();
    let events = asking.await.unwrap();
    let find = |name: &str| events.iter().find(|(known, _)| known == name).map(|(_, data)| data);
    assert_eq!(names(&events).first(), Some(&"start"));
    assert_eq!(find("log").unwrap()["source"], "stdout");
    let done = &events.last().unwrap();
    assert!(done.0 == "completed" && has(&done.1, &json!({ "id": id, "status": "succeeded" })), "{done:?}");
    assert!(done.1["output"][0].as_str().unwrap().starts_with("/outputs/"), "{done:?}");
    let missing = service.get("/events/prediction/none").await;
    assert_eq!(missing.status, 404);
    assert_eq!(service.get(&format!("/events/training/{id}")).await.status, 404);
    assert_eq!(service.get(&format!("/events/other/{id}")).await.status, 404);
}

/// Protects Cog's streaming clients: events have Cog's names, and a PUT of the same id joins the stream.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_cog() {
    let service = Service::start();
    let stream = |method: &str, path: &str| {
        let request = service.request(method, path).header("accept", "text/event-stream");
        events(request.json(&json!({ "input": { "prompt": "a", "num_outputs": 2 } })))
    };
    for events in [stream("PUT", "/predictions/streamed").await, stream("PUT", "/predictions/streamed").await]
    {
        let outputs: Vec<&Value> =
            events.iter().filter(|(name, _)| name == "output").map(|(_, data)| data).collect();
        assert_eq!(outputs.len(), 2);
        assert_eq!(outputs[1]["index"], 1);
        assert!(outputs[0]["chunk"].as_str().unwrap().starts_with("data:image/png;base64,"));
        assert!(names(&events).contains(&"metric") && names(&events).contains(&"log"));
        assert_eq!(names(&events).first(), Some(&"start"));
        let (name, last) = events.last().unwrap();
        assert!(
            name == "completed" && has(last, &json!({ "id": "streamed", "status": "succeeded" })),
            "{last}"
        );
    }
    assert_eq!(names(&stream("POST", "/predictions").await).last(), Some(&"completed"));
}
