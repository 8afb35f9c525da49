//! Requests as tables.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::Request;
use crate::api::masks::Format;
use crate::api::tests::{self as testing, Service};
use crate::job::Status;
use crate::queue::{Filter, Record};

fn read(fields: Value) -> Result<Request, (Option<String>, String)> {
    Request::of_fields(fields.as_object().unwrap()).map_err(|refusal| (refusal.field, refusal.message))
}

/// Protects: OpenAI's fields become ours, those of forms as well, and each picture has a seed of its own.
#[test]
fn fields() {
    let given = json!({ "model": "dall-e-3", "prompt": "a fox", "n": "2", "size": "64x32", "seed": "7", "steps": 3, "guidance_scale": "2.5",
        "quality": "hd", "style": "vivid", "user": "u", "background": null, "negative_prompt": "5" });
    let request = read(given).unwrap();
    assert_eq!(request.model, "dall-e-3");
    let (inputs, how) = request.into_inputs();
    let input = |seed: u64| {
        json!({ "prompt": "a fox", "negative_prompt": "5", "seed": seed, "num_inference_steps": 3, "guidance_scale": 2.5, "width": 64,
            "height": 32, "num_outputs": 1 })
    };
    assert_eq!(inputs.into_iter().map(Value::Object).collect::<Vec<_>>(), [input(7), input(8)]);
    assert!(how.as_url && how.format == Format::Png, "as OpenAI's older models answer");
    let streamed = read(json!({ "prompt": "a", "model": "dall-e-3", "stream": true })).unwrap();
    assert!(!streamed.into_inputs().1.as_url);

    let (inputs, how) =
        read(json!({ "prompt": "a", "size": "auto", "output_format": "jpeg", "output_compression": 0 }))
            .unwrap()
            .into_inputs();
    assert_eq!(
        Value::Object(inputs[0].clone()),
        json!({ "prompt": "a", "num_outputs": 1 }),
        "the model's own size, a random seed"
    );
    assert!(!how.as_url && how.format == Format::Jpeg(Some(1)));
}

/// Protects: a field that cannot be met is named, by OpenAI's name.
#[test]
fn bad_fields() {
    let cases = [
        (json!({}), "prompt", "prompt: required, but not given"),
        (json!({ "prompt": null }), "prompt", "prompt: required, but not given"),
        (json!({ "prompt": "a", "n": 0 }), "n", "n: expected an integer from 1 to 10, found 0"),
        (json!({ "prompt": "a", "n": 11 }), "n", "n: expected an integer from 1 to 10, found 11"),
        (json!({ "prompt": "a", "n": "two" }), "n", "n: expected an integer from 1 to 10, found \"two\""),
        (
            json!({ "prompt": "a", "size": "large" }),
            "size",
            "size: expected auto, or WIDTHxHEIGHT with a multiple of 8 from 8 to 4096 for each, found \"large\"",
        ),
        (
            json!({ "prompt": "a", "size": "-1x64" }),
            "size",
            "size: expected auto, or WIDTHxHEIGHT with a multiple of 8 from 8 to 4096 for each, found \"-1x64\"",
        ),
        (
            json!({ "prompt": "a", "size": "1x1" }),
            "size",
            "size: expected auto, or WIDTHxHEIGHT with a multiple of 8 from 8 to 4096 for each, found \"1x1\"",
        ),
        (json!({ "prompt": "a", "model": 5 }), "model", "model: expected text, found 5"),
        (
            json!({ "prompt": "a", "partial_images": 4 }),
            "partial_images",
            "partial_images: expected an integer from 0 to 3, found 4",
        ),
        (
            json!({ "prompt": "a", "stream": true, "response_format": "url" }),
            "response_format",
            "response_format: expected b64_json with stream, found \"url\"",
        ),
        (
            json!({ "prompt": "a", "response_format": "png" }),
            "response_format",
            "response_format: expected b64_json or url, found \"png\"",
        ),
        (
            json!({ "prompt": "a", "output_format": "bmp" }),
            "output_format",
            "output_format: expected png, jpeg or webp, found \"bmp\"",
        ),
        (
            json!({ "prompt": "a", "output_format": "jpeg", "output_compression": 101 }),
            "output_compression",
            "output_compression: expected an integer from 0 to 100, found 101",
        ),
    ];
    for (fields, field, message) in cases {
        let (found_field, found) = read(fields).unwrap_err();
        assert_eq!((found_field.as_deref(), found.as_str()), (Some(field), message));
    }
}

/// A form of parts: name, file name or none, content.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--x--\r\n");
    body
}

async fn edit(service: &Service, parts: &[(&str, Option<&str>, &[u8])]) -> (u16, Value) {
    let request = service.client.post(format!("{}/v1/images/edits", service.url)).body(form(parts));
    testing::read(request.header("content-type", "multipart/form-data; boundary=x")).await
}

/// Protects: pictures come back as base64 or as URLs that answer without a token, in the format that was asked for.
#[tokio::test]
async fn generations() {
    let service = Service::start().await;
    let (status, answer) = service
        .post("/v1/images/generations", json!({ "prompt": "a", "seed": 7, "n": 2, "size": "32x16" }))
        .await;
    assert_eq!((status, &answer["output_format"]), (200, &json!("png")), "{answer}");
    assert_eq!((&answer["size"], &answer["background"]), (&json!("32x16"), &json!("opaque")));
    assert_eq!(answer.get("quality"), None, "the request says none");
    for (i, gray) in [(0, 7), (1, 8)] {
        let picture = STANDARD.decode(answer["data"][i]["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(picture, testing::png(32, 16, gray));
    }
    for (format, start) in [("png", &b"\x89PNG"[..]), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")] {
        let body = json!({ "prompt": "a", "response_format": "url", "output_format": format, "output_compression": 50, "quality": "low" });
        // The base URL of some clients ends with /v1 already.
        let (_, answer) = service.post("/v1/v1/images/generations", body).await;
        assert_eq!((&answer["size"], &answer["quality"]), (&json!("1x1"), &json!("low")), "{answer}");
        let url = answer["data"][0]["url"].as_str().unwrap();
        let bytes = service.client.get(url).send().await.unwrap().bytes().await.unwrap();
        assert!(url.starts_with(&service.url) && bytes.starts_with(start), "{url}");
    }
}

/// The data of a stream's events.
fn data(stream: &str) -> Vec<Value> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Protects: clients that show pictures on the way: previews come before the end, as many as were asked for at most, then each picture.
#[tokio::test]
async fn streams() {
    let service = Service::start().await;
    let ask = |body: Value| {
        let request = service.client.post(format!("{}/v1/images/generations", service.url));
        async move { request.json(&body).send().await.unwrap() }
    };
    let body = json!({ "prompt": "wait", "seed": 7, "n": 2, "size": "32x16", "stream": true, "partial_images": 1, "output_format": "jpeg" });
    let mut answer = ask(body).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("\n\n") {
        text += std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap();
    }
    let preview = &data(&text)[0];
    assert!(text.starts_with("event: image_generation.partial_image\n"), "{text}");
    assert_eq!((&preview["partial_image_index"], &preview["size"]), (&json!(0), &json!("32x16")));
    service.go_on();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let events = data(&text);
    let done: Vec<&Value> = events.iter().filter(|e| e["type"] == "image_generation.completed").collect();
    assert_eq!((done.len(), &done[1]["size"]), (2, &json!("32x16")), "{text}");
    for event in &events {
        assert_eq!((&event["output_format"], &event["quality"]), (&json!("jpeg"), &json!("auto")));
        let picture = STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
        assert!(picture.starts_with(b"\xff\xd8"));
    }

    let text =
        ask(json!({ "prompt": "a", "seed": 7, "size": "32x16", "stream": true })).await.text().await.unwrap();
    let events = data(&text);
    let picture = STANDARD.encode(testing::png(32, 16, 7));
    assert_eq!((events.len(), &events[0]["b64_json"]), (1, &json!(picture)), "no previews were asked for");
    let text = ask(json!({ "prompt": "fail", "stream": true })).await.text().await.unwrap();
    assert_eq!((data(&text).len(), &data(&text)[0]["error"]["message"]), (1, &json!("it broke")));
    // What is wrong from the start is no stream.
    assert_eq!(ask(json!({ "prompt": "a", "size": "8x64", "stream": true })).await.status().as_u16(), 400);
}

/// Protects: refusals and failures have OpenAI's form and names; a failure is not tried again.
#[tokio::test]
async fn failures() {
    let service = Service::start().await;
    let cases = [
        (json!({ "prompt": "a", "size": "63x64" }), 400, "size"),
        (json!({ "prompt": "a", "size": "8x64" }), 400, "size"),
        (json!({ "prompt": "a", "steps": 0 }), 400, "steps"),
        (json!({ "prompt": 5 }), 400, "prompt"),
        (json!({}), 400, "prompt"),
        // What is found to be wrong while the prediction runs.
        (json!({ "prompt": "bad mask" }), 400, "mask"),
    ];
    for (body, expected, field) in cases {
        let (status, answer) = service.post("/v1/images/generations", body).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (expected, Some(field)), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    let request = service.client.post(format!("{}/v1/images/generations", service.url));
    let answer = request.json(&json!({ "prompt": "fail" })).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-should-retry"]),
        (500, &"false".parse().unwrap())
    );
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["message"], "it broke");
}

/// Protects: a model that is not there is not found, in OpenAI's form; the names that clients send by themselves mean the base model.
#[tokio::test]
async fn names_of_models() {
    let service = Service::start().await;
    let version = format!("{}:{}", super::BASE, super::ALIASES[0]);
    let ask = |model: &str| {
        let body = json!({ "prompt": "a", "size": "8x16", "model": model });
        async { service.post("/v1/images/generations", body).await }
    };
    for model in [
        "",
        "dall-e-2",
        "dall-e-3",
        "gpt-image-1",
        "gpt-image-1-mini",
        "stability-ai/sdxl",
        "sdxl",
        &version,
        "stand-in",
    ] {
        let (status, answer) = ask(model).await;
        // The stand-in refuses the size: the model was found.
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("size")), "{model}: {answer}");
    }
    for model in ["dalle", "me/fox", "gpt-4o"] {
        let message = format!("The model `{model}` does not exist; GET /v1/models lists those that do");
        let error = json!({ "message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found" });
        assert_eq!(ask(model).await, (404, json!({ "error": error })), "{model}");
    }
    let list = service.get("/v1/models").await.1;
    for model in list["data"].as_array().unwrap() {
        let id = model["id"].as_str().unwrap();
        assert_eq!(ask(id).await.0, 400, "{model}");
        assert_eq!(service.get(&format!("/v1/models/{id}")).await, (200, model.clone()));
    }
    let (kind, id, parent) = ("version".into(), "ab".repeat(32), "me/fox".into());
    service
        .state
        .queue
        .put_record(Record { kind, id, parent, body: json!({}), created_at: 0 })
        .await
        .unwrap();
    // Their clients write a name as one segment of the path.
    let (status, answer) = service.get("/v1/models/me%2Ffox").await;
    assert_eq!((status, &answer["id"], &answer["object"]), (200, &json!("me/fox"), &json!("model")));
    let (status, answer) = service.get("/v1/models/nothing").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
}

/// Protects: a body that is no object is refused in one clear line.
#[tokio::test]
async fn a_body_that_is_no_object() {
    let service = Service::start().await;
    let (status, answer) = service.post("/v1/images/generations", json!([])).await;
    let message = "body: expected a JSON object, found []";
    let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": "invalid_value" });
    assert_eq!((status, answer), (400, json!({ "error": error })));
}

/// Protects: picture and mask of an edit reach the prediction as files of the service, with the mask the way round that ours are.
#[tokio::test]
async fn edits_of_pictures() {
    let service = Service::start().await;
    let image = testing::png(16, 8, 9);
    let half = image::RgbaImage::from_fn(2, 1, |x, _| [0, 0, 0, if x == 0 { 255 } else { 0 }].into());
    let mask = super::masks::png(&half.into()).unwrap();
    let parts = [
        ("image[]", Some("a.png"), &image[..]),
        ("mask", Some("m.png"), &mask),
        ("prompt", None, b"a"),
        ("seed", None, b"3"),
    ];
    let (status, answer) = edit(&service, &parts).await;
    assert_eq!(status, 200, "{answer}");
    let input = service.inputs().await.remove(0);
    let folder = tempfile::tempdir().unwrap();
    let resolved = crate::inputs::resolve(
        &service.state.inputs,
        &calotype_request::PredictInput::schema(),
        &input,
        folder.path(),
    )
    .await
    .unwrap();
    let open = |field: &str| image::open(resolved[field].as_str().unwrap()).unwrap();
    assert_eq!(open("mask").to_luma8().as_raw(), &[0, 255]);
    assert_eq!(open("image").to_luma8().dimensions(), (16, 8));
    assert_eq!(resolved["seed"], 3);

    type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);
    let cases: [(&[Part], &str); 3] = [
        (&[("prompt", None, b"a")], "image: required, but not given"),
        (&[("image", Some("a.png"), b"no picture"), ("prompt", None, b"a")], "image: not a picture"),
        (&[("image", Some("a"), &image)], "prompt: required, but not given"),
    ];
    for (parts, message) in cases {
        let (status, answer) = edit(&service, parts).await;
        let found = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && found.starts_with(message), "{answer}");
    }

    // A chat sends the pictures of several messages.
    let (status, answer) = edit(
        &service,
        &[("image[]", Some("a"), &image), ("image[]", Some("b"), b"no picture"), ("prompt", None, b"a")],
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let newest = Filter { limit: 1, ..Filter::default() };
    let logs = service.state.queue.list(&newest).await.unwrap().remove(0).logs;
    assert!(
        logs.starts_with("warning: image: one picture is edited, the first; 1 more were left out\n"),
        "{logs}"
    );
}

/// Protects: a client that hangs up cancels its predictions.
#[tokio::test]
async fn hanging_up() {
    for body in [json!({ "prompt": "wait" }), json!({ "prompt": "wait", "stream": true })] {
        hangs_up(body).await;
    }
}

async fn hangs_up(body: Value) {
    let service = Service::start().await;
    let url = format!("{}/v1/images/generations", service.url);
    let asking = async { service.client.post(url).json(&body).send().await.unwrap().bytes().await };
    let running = async {
        loop {
            let counts = service.state.queue.counts().await.unwrap();
            if counts[0].1.running == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { _ = asking => panic!("it never ends"), () = running => {} }
    // The request is dropped here.
    loop {
        let jobs = service.state.queue.list(&Filter { limit: 1, ..Filter::default() }).await.unwrap();
        if jobs[0].status == Status::Canceled {
            break;
        }
        tokio::task::yield_now().await;
    }
}
