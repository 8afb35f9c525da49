//! Outputs that are sent elsewhere, and what others are told on behalf of a request.

use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::service::{PNG, Service, read, table};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// An empty zip file.
const SET: &str = "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

/// Protects those who keep outputs elsewhere, as Cog's server lets them: each file is sent there once, with what tells the receiver whose it
/// is, and the answers have the URLs that the receiver gave, without the signatures in them. The page still has the files.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_url() {
    let located = (201, Some("https://files.example/a/out-0.png?signature=x"));
    let (receiver, address) = Receiver::start(&[located, (200, None), (307, Some("/elsewhere?b=1"))]).await;
    let service = Service::with(|settings| settings.upload_url = Some(format!("{address}/put")));
    let request = service.request("PUT", "/predictions/mine").header("traceparent", PARENT);
    let request = request.header("tracestate", "a=1").json(&json!({ "input": { "num_outputs": 2 } }));
    let done = read(request).await;
    let urls = json!(["https://files.example/a/out-0.png", format!("{address}/put/out-1.png")]);
    assert_eq!((done.status, &done.body["status"], &done.body["output"]), (200, &json!("succeeded"), &urls));
    let heard = receiver.heard();
    assert_eq!(
        heard.iter().map(|heard| heard.line.as_str()).collect::<Vec<_>>(),
        ["PUT /put/out-0.png", "PUT /put/out-1.png"]
    );
    for heard in &heard {
        assert_eq!(heard.body, PNG);
        for (name, value) in [
            ("content-type", "image/png"),
            ("content-length", PNG.len().to_string().as_str()),
            ("x-prediction-id", "mine"),
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
        ] {
            assert_eq!(heard.header(name), value, "{heard:?}");
        }
    }
    assert_eq!(service.get("/v1/predictions/mine").await.body["output"], urls);
    let of_page = service.get("/v1/predictions/mine?file_urls=true").await.body["output"][1].clone();
    let picture = service.request("GET", of_page.as_str().unwrap()).send().await.unwrap();
    assert_eq!(picture.bytes().await.unwrap(), PNG);

    let training = service.post("/trainings", json!({ "input": { "input_images": SET } })).await.body;
    assert_eq!(training["output"], json!({ "weights": format!("{address}/elsewhere") }));
    let weights = &receiver.heard()[2..];
    assert_eq!(
        weights.iter().map(|heard| heard.line.as_str()).collect::<Vec<_>>(),
        ["PUT /put/trained_model.tar", "PUT /elsewhere?b=1"]
    );
    assert_eq!(weights[1].body, "weights");
    // Replicate's clients have the service's own URLs.
    let path = service.prediction(json!({})).await;
    assert!(service.over(&path).await["output"][0].as_str().unwrap().starts_with("data:"));
    assert_eq!(receiver.heard().len(), 4);
}

/// Protects clients of older servers: `output_file_prefix` sends each file as a form, and is the beginning of its URL.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_file_prefix() {
    let (receiver, address) = Receiver::start(&[]).await;
    let service = Service::with(|settings| settings.allow_private_networks = true);
    let prefix = format!("{address}/put/a-");
    let done = service.post("/predictions", json!({ "output_file_prefix": prefix })).await.body;
    assert_eq!(done["output"], json!([format!("{prefix}out-0.png")]), "{done}");
    let heard = receiver.heard().remove(0);
    assert_eq!(heard.line, "PUT /put/a-out-0.png");
    let boundary = heard.header("content-type").strip_prefix("multipart/form-data; boundary=").unwrap();
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"out-0.png\"\r\nContent-Type: image/png\r\n\r\n"
    );
    let form = [head.as_bytes(), PNG, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
    assert_eq!(heard.body, form);
}

/// Protects clients from outputs that are nowhere: a place that is busy is asked again, one that refuses is the error of the job; and nobody
/// has files sent into the service's own network.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_does_not_take_files() {
    let (receiver, address) = Receiver::start(&[(503, None), (429, None), (200, None), (403, None)]).await;
    let service = Service::with(|settings| settings.upload_url = Some(address.clone()));
    let done = service.post("/predictions", json!({})).await.body;
    assert_eq!(done["output"], json!([format!("{address}/out-0.png")]));
    assert_eq!(receiver.heard().len(), 3);
    let failed = service.post("/predictions", json!({})).await.body;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"], "upload of out-0.png: the host answers 403 Forbidden");
    assert_eq!(failed.get("output"), None);
    let private = json!({ "detail": [{ "loc": ["body", "output_file_prefix"], "msg": "127.0.0.1 is not on the public internet…" }] });
    let no_url = json!({ "detail": [{ "loc": ["body", "output_file_prefix"], "msg": "not a URL…" }] });
    table(
        &service,
        &[
            (
                "POST",
                "/predictions",
                &[],
                Some(r#"{"output_file_prefix": "http://127.0.0.1/"}"#),
                422,
                private,
            ),
            ("POST", "/predictions", &[], Some(r#"{"output_file_prefix": "put/"}"#), 422, no_url),
        ],
    )
    .await;
}

/// Protects Cog's clients: a webhook without a list is told of all events, one with an empty list of none.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_of_events() {
    let (receiver, address) = Receiver::start(&[]).await;
    let service = Service::with(|settings| settings.allow_private_networks = true);
    for (id, events) in [("none", json!([])), ("all", Value::Null)] {
        let body = json!({ "id": id, "webhook": address, "webhook_events_filter": events });
        assert_eq!(service.post("/predictions", body).await.status, 200);
    }
    let mut statuses = Vec::new();
    while statuses.last().is_none_or(|status| status != "succeeded") {
        let heard = receiver.hears(statuses.len() + 1).await.remove(statuses.len());
        let body: Value = serde_json::from_slice(&heard.body).unwrap();
        assert_eq!(body["id"], "all");
        statuses.push(body["status"].clone());
    }
    assert!(statuses.len() > 1, "{statuses:?}");
}

/// Protects whoever follows a request through several services: webhooks have its trace, whichever API made the job, and a header that is no
/// trace goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn traces() {
    let (receiver, address) = Receiver::start(&[]).await;
    let service = Service::with(|settings| settings.allow_private_networks = true);
    let hook = json!({ "webhook": address, "webhook_events_filter": ["completed"] });
    let paths = ["/predictions", "/v1/models/stability-ai/sdxl/predictions", "/predictions"];
    for (number, (path, parent)) in paths.into_iter().zip([PARENT, PARENT, "00-0-0-0"]).enumerate() {
        let request = service.request("POST", path).header("traceparent", parent).header("tracestate", "b=2");
        assert!(read(request.json(&hook)).await.status < 300);
        let heard = receiver.hears(number + 1).await.remove(number);
        let (parent, state) = if parent == PARENT { (PARENT, "b=2") } else { ("", "") };
        assert_eq!((heard.header("traceparent"), heard.header("tracestate")), (parent, state));
    }
}

/// Protects the operator's files: weights in a folder that stands for a URL stay where they are, and serve each prediction that names them.
#[tokio::test(flavor = "multi_thread")]
async fn mapped_weights_stay() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("w.tar");
    std::fs::write(&weights, "weights").unwrap();
    let maps = vec![("https://w.example".to_owned(), folder.path().canonicalize().unwrap())];
    let service = Service::with(|settings| settings.map_urls = maps);
    for _ in 0..2 {
        let input = json!({ "prompt": "a", "replicate_weights": "https://w.example/w.tar" });
        let done = service.post("/predictions", json!({ "input": input })).await.body;
        assert_eq!(done["status"], "succeeded", "{done}");
        assert_eq!(std::fs::read_to_string(&weights).unwrap(), "weights");
    }
}
