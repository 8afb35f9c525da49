//! Requests as tables.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::Request;
use crate::api::tests::{self as testing, Service};
use crate::queue::Record;

fn read(fields: Value, with_image: bool) -> Result<Request, String> {
    Request::of_fields(fields.as_object().unwrap(), with_image).map_err(|refusal| refusal.message)
}

/// Protects: the web UI's fields become ours, with its defaults, and seeds that follow each other; what clients send by habit is taken.
#[test]
fn fields() {
    let given = json!({ "prompt": "a fox", "negative_prompt": "dog", "steps": 4.0, "cfg_scale": 3, "width": 64, "height": 32, "seed": 5,
        "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 2, "n_iter": 1, "denoising_strength": 0.7, "enable_hr": false,
        "restore_faces": false, "styles": [], "alwayson_scripts": { "ADetailer": { "args": [false] } }, "save_images": true, "override_settings": { "CLIP_stop_at_last_layers": 2 } });
    let input = |seed: u64| {
        json!({ "prompt": "a fox", "negative_prompt": "dog", "num_inference_steps": 4, "guidance_scale": 3, "width": 64, "height": 32,
            "scheduler": "KarrasDPM", "num_outputs": 1, "seed": seed })
    };
    let request = read(given, false).unwrap();
    assert_eq!(request.inputs().into_iter().map(Value::Object).collect::<Vec<_>>(), [input(5), input(6)]);
    let info = request.info(&[5, 6], &["text".into()], (64, 32), "pocket");
    assert_eq!((&info["seed"], &info["all_seeds"], &info["width"]), (&json!(5), &json!([5, 6]), &json!(64)));
    assert_eq!((&info["infotexts"], &info["sampler_name"]), (&json!(["text"]), &json!("DPM++ 2M")));

    let mut input = Value::Object(read(json!({ "seed": -1 }), true).unwrap().inputs().remove(0));
    assert!(input["seed"].take().is_u64(), "a seed is drawn");
    let expected = json!({ "guidance_scale": 7, "prompt_strength": 0.75, "prompt": "", "scheduler": "K_EULER", "num_outputs": 1, "seed": null });
    assert_eq!(input, expected);
}

/// Protects: clients that write numbers as text, as the web UI takes them.
#[test]
fn numbers_as_text() {
    let given = json!({ "steps": "3", "cfg_scale": " 7.5", "width": "64.0", "seed": "7", "n_iter": "2", "denoising_strength": "0.5",
        "enable_hr": "false", "subseed_strength": "0" });
    let input = |seed: u64| {
        json!({ "prompt": "", "num_inference_steps": 3, "guidance_scale": 7.5, "width": 64, "prompt_strength": 0.5,
            "scheduler": "K_EULER", "num_outputs": 1, "seed": seed })
    };
    let inputs = read(given, true).unwrap().inputs().into_iter().map(Value::Object);
    assert_eq!(inputs.collect::<Vec<_>>(), [input(7), input(8)]);
}

/// Protects: a sampler that stands for another is told of, by its name, with what it stands for.
#[test]
fn samplers_that_stand_for_others() {
    let request = read(json!({ "sampler_name": "DPM++ SDE", "seed": 1 }), false).unwrap();
    let info = request.info(&[1], &["a\nSteps: 1".into()], (64, 32), "pocket");
    assert_eq!(info["sampler_name"], "DPM++ 2M SDE");
    assert_eq!(info["extra_generation_params"], json!({ "Approximated": "DPM++ SDE by DPM++ 2M SDE" }));
    assert_eq!(info["infotexts"], json!(["a\nSteps: 1, Approximated: DPM++ SDE by DPM++ 2M SDE"]));
}

/// Protects: what cannot be met is refused by the web UI's name of the field.
#[test]
fn bad_fields() {
    let cases = [
        (json!({ "enable_hr": true }), "enable_hr: there is nothing of the kind here; leave the field out"),
        (
            json!({ "alwayson_scripts": { "controlnet": { "args": [1] } } }),
            "alwayson_scripts: there is nothing of the kind here; leave the field out",
        ),
        (json!({ "batch_size": 4, "n_iter": 5 }), "batch_size: at most 16 pictures in all, found 20"),
        (json!({ "batch_size": 0 }), "batch_size: expected an integer of at least 1, found 0"),
        (json!({ "n_iter": "two" }), "n_iter: expected a number, found \"two\""),
        (json!({ "steps": "" }), "steps: expected a number, found \"\""),
        (json!({ "cfg_scale": "inf" }), "cfg_scale: expected a number, found \"inf\""),
        (json!({ "n_iter": "1.5" }), "n_iter: expected an integer of at least 1, found 1.5"),
        (json!({ "seed": -2 }), "seed: expected an integer of at least 0, or -1, found -2"),
        (json!({ "seed": "-2" }), "seed: expected an integer of at least 0, or -1, found -2"),
    ];
    for (fields, message) in cases {
        assert_eq!(read(fields, false).unwrap_err(), message);
    }
}

/// Protects: what clients of the web UI do: pictures as base64 with `info` as text, and the lists that they ask for beforehand.
#[tokio::test]
async fn pictures() {
    let service = Service::start().await;
    let body = json!({ "prompt": "a", "seed": 7, "batch_size": 2, "width": 32, "height": 16, "steps": 2 });
    let (status, answer) = service.post("/sdapi/v1/txt2img", body.clone()).await;
    assert_eq!((status, &answer["parameters"]), (200, &body), "{answer}");
    let pictures = [7, 8].map(|gray| STANDARD.encode(testing::png(32, 16, gray)));
    assert_eq!(answer["images"], json!(pictures));
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&info["all_seeds"], &info["width"], &info["height"]),
        (&json!([7, 8]), &json!(32), &json!(16))
    );

    let image = STANDARD.encode(testing::png(8, 16, 0));
    let body = json!({ "prompt": "a", "init_images": [format!("data:image/png;base64,{image}")], "mask": image, "inpainting_mask_invert": 1, "seed": 1 });
    let (status, answer) = service.post("/sdapi/v1/img2img", body).await;
    assert_eq!(status, 200, "{answer}");
    let input = service.inputs().await.pop().unwrap();
    assert_eq!(input["prompt_strength"], 0.75);
    let folder = tempfile::tempdir().unwrap();
    let resolved = crate::inputs::resolve(
        &service.state.inputs,
        &calotype_request::PredictInput::schema(),
        &input,
        folder.path(),
    )
    .await
    .unwrap();
    let mask = image::open(resolved["mask"].as_str().unwrap()).unwrap().to_luma8();
    assert!(
        mask.dimensions() == (8, 16) && mask.pixels().all(|pixel| pixel[0] == 255),
        "the mask is inverted"
    );

    for list in [
        "samplers",
        "schedulers",
        "sd-models",
        "sd-vae",
        "upscalers",
        "latent-upscale-modes",
        "loras",
        "options",
        "progress",
    ] {
        let (status, answer) = service.get(&format!("/sdapi/v1/{list}")).await;
        assert!(status == 200 && (answer.is_array() || answer.is_object()), "{list}: {answer}");
    }
    let (_, options) = service.get("/sdapi/v1/options").await;
    let model = json!({ "sd_model_checkpoint": options["sd_model_checkpoint"] });
    assert_eq!(service.post("/sdapi/v1/options", model).await.0, 200);
    assert_eq!(service.get("/sdapi/v1/progress").await.1["state"]["job_count"], 0);
    for call in ["unload-checkpoint", "reload-checkpoint", "refresh-checkpoints"] {
        assert_eq!(service.post(&format!("/sdapi/v1/{call}"), json!({})).await, (200, json!({})), "{call}");
    }
}

/// Protects: refusals name the web UI's fields.
#[tokio::test]
async fn failures() {
    let service = Service::start().await;
    let cases = [
        ("txt2img", json!({ "cfg_scale": 100 }), 422, "cfg_scale: "),
        ("txt2img", json!({ "width": 8 }), 422, "width: too small"),
        ("txt2img", json!({ "prompt": "fail" }), 500, "it broke"),
        ("txt2img", json!({ "prompt": "flagged" }), 422, "NSFW content detected"),
        // What is found to be wrong while the prediction runs.
        ("txt2img", json!({ "prompt": "bad mask" }), 422, "mask: not a picture"),
        (
            "txt2img",
            json!({ "prompt": "<lora:none:1>" }),
            422,
            "prompt: <lora:none:…>: no trained model has this name; none is trained yet",
        ),
        (
            "txt2img",
            json!({ "override_settings": { "sd_model_checkpoint": "x" } }),
            422,
            "sd_model_checkpoint: expected stand-in",
        ),
        ("img2img", json!({}), 422, "init_images: expected one picture as base64"),
        ("img2img", json!({ "init_images": ["!"] }), 422, "init_images: not valid base64"),
        (
            "options",
            json!({ "sd_model_checkpoint": "x" }),
            422,
            "sd_model_checkpoint: expected stand-in, found \"x\"",
        ),
    ];
    for (path, body, status, detail) in cases {
        let (found, answer) = service.post(&format!("/sdapi/v1/{path}"), body).await;
        let shown = answer["detail"].as_str().unwrap_or_default();
        assert!(found == status && shown.starts_with(detail), "{path}: {found} {answer}");
    }
}

/// Protects: `<lora:…>` gives a prediction the weights of a trained model, as a file of the service with its scale.
#[tokio::test]
async fn trained_models() {
    let service = Service::start().await;
    let key = "jobs/t/1/trained_model.tar";
    service.state.storage.put(key, "weights".into()).await.unwrap();
    let body = json!({ "weights": key });
    let (kind, id, parent) = ("version".to_string(), "ab".repeat(32), "me/fox".to_string());
    service.state.queue.put_record(Record { kind, id, parent, body, created_at: 0 }).await.unwrap();
    assert_eq!(service.get("/sdapi/v1/loras").await.1[0]["name"], "fox");
    for name in ["fox", "me/fox"] {
        let (status, answer) =
            service.post("/sdapi/v1/txt2img", json!({ "prompt": format!("a <lora:{name}:0.5> TOK") })).await;
        assert_eq!(status, 200, "{answer}");
        let input = service.inputs().await.pop().unwrap();
        assert_eq!(input["prompt"], "a  TOK");
        let folder = tempfile::tempdir().unwrap();
        let resolved = crate::inputs::resolve(
            &service.state.inputs,
            &calotype_request::PredictInput::schema(),
            &input,
            folder.path(),
        )
        .await
        .unwrap();
        let path = resolved["replicate_weights"].as_str().unwrap().strip_suffix(":0.5").unwrap().to_string();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "weights");
    }
}

/// Protects: a request in progress is shown, and ends when it is interrupted.
#[tokio::test]
async fn interrupting() {
    let service = Service::start().await;
    let asking = service.post("/sdapi/v1/txt2img", json!({ "prompt": "wait" }));
    let interrupting = async {
        while service.get("/sdapi/v1/progress").await.1["state"]["job_count"] != 1 {}
        assert_eq!(service.post("/sdapi/v1/interrupt", json!({})).await, (200, json!({})));
    };
    let ((status, answer), ()) = tokio::join!(asking, interrupting);
    assert_eq!((status, &answer["images"]), (200, &json!([])));
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["all_seeds"], json!([]));
}

/// Protects whoever interrupts after a number of pictures: one whose steps are done, but which is not there yet, does not count.
#[tokio::test]
async fn pictures_that_are_finished() {
    let service = Service::start().await;
    let asking = service.post("/sdapi/v1/txt2img", json!({ "prompt": "wait at the end", "n_iter": 2 }));
    let looking = async {
        let progress = loop {
            let progress = service.get("/sdapi/v1/progress").await.1;
            if progress["state"]["sampling_step"] == 2 {
                break progress;
            }
        };
        service.go_on();
        progress
    };
    let ((status, _), progress) = tokio::join!(asking, looking);
    let expected = (200, &json!(0), &json!(0.5));
    assert_eq!((status, &progress["state"]["job_no"], &progress["progress"]), expected);
}

/// Protects: the answer to an interrupted request has the batch's finished pictures, each with its seed and its infotext.
#[tokio::test]
async fn interrupting_a_batch() {
    let service = Service::start().await;
    let body = json!({ "prompt": "wait with seed 9", "seed": 7, "n_iter": 4, "width": 32, "height": 16 });
    let asking = service.post("/sdapi/v1/txt2img", body);
    let interrupting = async {
        while service.get("/sdapi/v1/progress").await.1["state"]["job_no"] != 2 {}
        service.post("/sdapi/v1/interrupt", json!({})).await;
    };
    let ((status, answer), ()) = tokio::join!(asking, interrupting);
    let pictures = [7, 8].map(|gray| STANDARD.encode(testing::png(32, 16, gray)));
    assert_eq!((status, &answer["images"]), (200, &json!(pictures)), "{answer}");
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"], &info["width"]), (&json!(7), &json!([7, 8]), &json!(32)));
    for name in ["infotexts", "all_prompts", "all_subseeds"] {
        assert_eq!(info[name].as_array().unwrap().len(), 2, "{name}");
    }
}
