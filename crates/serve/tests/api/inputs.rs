//! What clients hear of their inputs: at once, or in the job.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use calotype_serve::settings::Settings;
use serde_json::{Value, json};

use crate::service::{Service, table};

/// An empty zip file.
const SET: &str = "data:application/zip;base64,UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";
const TRAININGS: &str = "/v1/models/stability-ai/sdxl/versions/39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b/trainings";

/// Protects people who misspell a field, whichever API they use: the log of the job begins with the field and with what they probably meant, from
/// the first answer to the last; so does the stream of events.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_left_out() {
    let service = Service::start();
    let line = |field: &str, meant: &str| {
        format!(
            "warning: input.{field} is not a field of this model, and was left out. Did you mean {meant}?\n"
        )
    };
    let done = service.post("/predictions", json!({ "input": { "promt": "a", "seed": 1 } })).await.body;
    let logs = done["logs"].as_str().unwrap();
    assert!(logs.starts_with(&(line("promt", "prompt") + "Using seed: 1\n")), "{logs}");
    assert_eq!(done["input"], json!({ "seed": 1 }));
    let steps = line("max_steps", "max_train_steps");
    for (path, body, expected) in [
        (
            "/v1/models/stability-ai/sdxl/predictions",
            json!({ "input": { "promt": "a" } }),
            &line("promt", "prompt"),
        ),
        (
            TRAININGS,
            json!({ "destination": "me/fox", "input": { "input_images": SET, "max_steps": 10 } }),
            &steps,
        ),
        ("/v1/preparations", json!({ "input": { "input_images": SET, "max_steps": 10 } }), &steps),
    ] {
        let made = service.post(path, body).await.body;
        assert_eq!(made["logs"], json!(expected), "{path}: {made}");
        let job = service.over(made["urls"]["get"].as_str().unwrap()).await;
        assert!(job["logs"].as_str().unwrap().starts_with(expected.as_str()), "{path}: {job}");
    }
    let path = service.prediction(json!({ "widht": 64 })).await;
    let id = path.rsplit('/').next().unwrap();
    let events = service.get(&format!("/events/prediction/{id}")).await.body;
    let told = json!(line("widht", "width")).to_string();
    assert!(events.as_str().unwrap().contains(told.trim_matches('"')), "{events}");
}

/// Protects clients from jobs that cannot succeed: what is wrong with an input is told at once where the request alone shows it, and by the
/// field where it takes a look at a file.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_there_are_not() {
    let service = Service::start();
    let expected = "expected an http or https URL, a file of the service or a data URI, found…";
    let mut cases = Vec::new();
    for (field, value, problem) in [
        ("image", "photo.png", expected),
        ("image", "/etc/passwd", expected),
        ("image", "data:image/png;base64,AQ!D", "not valid base64"),
        ("image", "data:image/png;base64", "a data URI without a comma…"),
        ("image", "ftp://x.example/a.png", "expected an http or https URL, found ftp:"),
        ("image", "http://127.0.0.1/a.png", "127.0.0.1 is not on the public internet…"),
        (
            "image",
            "/outputs/jobs/a/1/out-0.png?signature=00",
            "/outputs/jobs/a/1/out-0.png: the signature is not…",
        ),
        ("replicate_weights", "a.tar", expected),
        ("input_images", "", "expected a file, found an empty text"),
        ("input_images", "photos.zip", expected),
    ] {
        let path = if field == "input_images" {
            "/v1/preparations"
        } else {
            "/v1/models/stability-ai/sdxl/predictions"
        };
        let part = json!({ "status": 422, "invalid_fields": [{ "field": format!("input.{field}"), "description": problem }] });
        let body = json!({ "input": { field: value } }).to_string();
        cases.push((path, body, part));
    }
    let asked: Vec<_> = cases
        .iter()
        .map(|(path, body, part)| ("POST", *path, &[][..], Some(body.as_str()), 422, part.clone()))
        .collect();
    table(&service, &asked).await;
    assert_eq!(service.get("/v1/predictions").await.body["results"], json!([]), "nothing was made");
    let gone = "/v1/files/abcdefghijklmnopqrstuvwx01";
    let job = service.over(&service.prediction(json!({ "image": gone })).await).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"].as_str().unwrap().starts_with(&format!("image: {gone}: no such file")), "{job}");
}

/// Protects workers from prompts that would take them hours: a text has a limit, and the refusal says which.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_too_long() {
    let service = Service::front();
    let ask = |bytes: usize| {
        service.post(
            "/v1/models/stability-ai/sdxl/predictions",
            json!({ "input": { "negative_prompt": "a".repeat(bytes) } }),
        )
    };
    let refused = ask((64 << 10) + 1).await;
    let field: &Value = &refused.body["invalid_fields"][0];
    assert_eq!((refused.status, &field["field"]), (422, &json!("input.negative_prompt")), "{refused:?}");
    assert_eq!(field["description"], "expected at most 65536 bytes, found 65537");
    assert_eq!(ask(64 << 10).await.status, 201);
}

/// Protects the database, and every poll, from rows as large as files: a large data URI is a file of the service once the job is made, and the
/// answers name its URL, which is an input too. A small one stays as it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn large_data_uris() {
    let service = Service::start();
    let uri = |kind: &str, bytes: &[u8]| format!("data:{kind};base64,{}", STANDARD.encode(bytes));
    let (small, large) = (uri("application/x-tar", b"small"), vec![7_u8; 20_000]);
    let weights = format!("{}:0.5,{small}", uri("application/x-tar", &large));
    let input = json!({ "image": uri("image/png", &large), "mask": small, "replicate_weights": weights });
    let path = service.prediction(input).await;
    let job = service.over(&path).await;
    assert_eq!((&job["status"], &job["input"]["mask"]), (&json!("succeeded"), &json!(small)), "{job}");
    let folder = format!("{}/outputs/jobs/{}/input/", service.address, job["id"].as_str().unwrap());
    let image = job["input"]["image"].as_str().unwrap();
    assert!(image.starts_with(&folder) && image.contains("/image-0.png?signature="), "{image}");
    let weights = job["input"]["replicate_weights"].as_str().unwrap();
    assert!(weights.starts_with(&folder) && weights.contains(":0.5,data:application/x-tar"), "{weights}");
    let stored = service.request("GET", image).send().await.unwrap();
    assert_eq!(stored.bytes().await.unwrap(), large);
    let relative = service.get(&format!("{path}?file_urls=true")).await.body;
    assert_eq!(format!("{}{}", service.address, relative["input"]["image"].as_str().unwrap()), image);
    let cog = service.get(&path.replace("/v1", "")).await.body;
    assert_eq!(cog["input"], job["input"]);
    let again = service.over(&service.prediction(job["input"].clone()).await).await;
    assert_eq!((&again["status"], &again["input"]["image"]), (&json!("succeeded"), &json!(image)), "{again}");
}

/// Protects the disk: a job that is refused leaves no file.
#[tokio::test(flavor = "multi_thread")]
async fn refused_data_uris() {
    let service = Service::with(|settings: &mut Settings| (settings.workers, settings.max_queue) = (0, 0));
    let image = format!("data:image/png;base64,{}", STANDARD.encode(vec![7_u8; 20_000]));
    let full = service
        .post("/v1/models/stability-ai/sdxl/predictions", json!({ "input": { "image": image } }))
        .await;
    assert_eq!(full.status, 429, "{full:?}");
    let mut folders = vec![service.data().join("files")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            assert!(entry.path().is_dir(), "{}", entry.path().display());
            folders.push(entry.path());
        }
    }
}
