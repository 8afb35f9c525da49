//! Predictions.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Sandbox, png, tiny_model};
use crate::service::{Service, data_uri, model, wait};

/// The pictures that `calotype predict` makes of the same fields.
fn predicted(here: &Sandbox, input: &Value) -> Vec<Vec<u8>> {
    let mut args = vec!["predict".to_owned()];
    args.extend(model());
    for (name, value) in input.as_object().expect("fields") {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        args.extend(["-i".into(), format!("{name}={text}")]);
    }
    let folder = format!("out-{}", here.path("").read_dir().expect("a folder").count());
    args.extend(["-o".into(), folder.clone()]);
    let ended = here.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut paths: Vec<_> =
        fs::read_dir(here.path(&folder)).expect("there").map(|entry| entry.expect("there").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// Protects pictures: over HTTP they are those of the command line to the byte, with what made them, whatever the service has made
/// before. A request with a problem is refused by the name of its field.
#[test]
fn the_pictures_of_the_command_line() {
    let here = Sandbox::new();
    let service = Service::start(&here, &[]);
    let size = [("width", 64), ("height", 48)];
    let request = |more: Value| {
        let mut input =
            json!({ "prompt": "a red fox", "seed": 7, "num_inference_steps": 3, "num_outputs": 2 });
        size.iter().for_each(|(name, side)| input[*name] = (*side).into());
        more.as_object().into_iter().flatten().for_each(|(name, value)| input[name] = value.clone());
        input
    };
    let first = request(json!({}));
    let pictures = predicted(&here, &first);
    assert_eq!(pictures.len(), 2);
    assert_eq!(service.pictures(&first), pictures);
    let image = data_uri("image/png", &png(64, 48, &[90; 64 * 48 * 3]));
    for more in [
        json!({ "negative_prompt": "a cat", "scheduler": "DDIM" }),
        json!({ "width": 32, "height": 32, "guidance_scale": 1, "num_outputs": 1 }),
        json!({ "image": image, "prompt_strength": 0.9 }),
    ] {
        service.pictures(&request(more));
    }
    assert_eq!(service.pictures(&first), pictures, "the same after others");
    let (status, body) = service.post("/predictions", &json!({ "input": { "width": 63 } }));
    assert_eq!(status, 422, "{body}");
    assert!(body.to_string().contains("width"), "{body}");
    let broken = request(json!({ "image": data_uri("image/png", b"no picture") }));
    let (_, made) = service.post("/v1/predictions", &json!({ "version": "x", "input": broken.clone() }));
    let (_, made) = match made["id"].as_str() {
        Some(_) => (201, made),
        None => service.post("/v1/models/stability-ai/sdxl/predictions", &json!({ "input": broken })),
    };
    let job = service.over(&format!("/v1/predictions/{}", made["id"].as_str().expect("an id")));
    assert_eq!(job["status"], "failed", "{job}");
    let error = job["error"].as_str().expect("an error");
    assert!(error.starts_with("image: ") && !error.contains("data/work"), "{error}");
}

/// Protects pictures: trained weights in turn give the same pictures where networks stay loaded as where none does.
#[test]
fn trained_weights_in_turn() {
    let (here, there) = (Sandbox::new(), Sandbox::new());
    let (warm, cold) = (Service::start(&here, &[]), Service::start(&there, &["--keep-warm", "0"]));
    let weights = ["kohya.safetensors", "trained_model.tar"].map(|name| {
        let bytes = fs::read(tiny_model().join("../adapters").join(name)).expect("there");
        data_uri("application/octet-stream", &bytes)
    });
    let mut pictures = Vec::new();
    for chosen in [None, Some(0), Some(1), None, Some(0)] {
        let mut input =
            json!({ "prompt": "a TOK", "width": 32, "height": 32, "num_inference_steps": 1, "seed": 5 });
        chosen.into_iter().for_each(|i: usize| input["replicate_weights"] = weights[i].as_str().into());
        let picture = warm.pictures(&input);
        assert_eq!(picture, cold.pictures(&input), "{chosen:?}");
        pictures.push(picture);
    }
    assert!(pictures[0] == pictures[3] && pictures[1] == pictures[4]);
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
}

/// Protects people who have changed their mind, and whoever waits behind them: a prediction of 500 steps that computes is canceled within a
/// step, and the next one is made. Its log has lines as tqdm writes them.
#[test]
fn a_prediction_is_canceled() {
    let here = Sandbox::new();
    let service = Service::start(&here, &[]);
    let make = |steps: usize| {
        let input =
            json!({ "prompt": "a", "width": 256, "height": 256, "num_inference_steps": steps, "seed": 1 });
        let path = "/v1/models/stability-ai/sdxl/predictions";
        let (status, made) = service.post(path, &json!({ "input": input }));
        assert_eq!((status, &made["status"]), (201, &json!("starting")), "{made}");
        format!("/v1/predictions/{}", made["id"].as_str().expect("an id"))
    };
    let (long, next) = (make(500), make(1));
    wait("steps", || service.get(&long).1["logs"].as_str().filter(|logs| logs.contains("/500 ")).map(drop));
    let (status, job) = service.post(&format!("{long}/cancel"), &json!({}));
    assert_eq!((status, &job["status"]), (200, &json!("canceled")), "{job}");
    let done = service.over(&next);
    assert_eq!(done["status"], "succeeded", "{done}");
    let logs = done["logs"].as_str().expect("text");
    assert!(logs.contains("Using seed: 1\n") && logs.contains("100%|"), "{logs}");
    assert_eq!(service.get(&long).1["status"], "canceled");
}

/// Protects the prediction that computes when a service is asked to end: the service finishes the prediction, and ends without an error.
/// A new process on the same folder still has the job.
#[cfg(unix)]
#[test]
fn a_prediction_is_finished() {
    let here = Sandbox::new();
    let mut service = Service::start(&here, &[]);
    let input = json!({ "prompt": "a", "width": 64, "height": 64, "num_inference_steps": 40, "seed": 1 });
    let (_, made) = service.post("/v1/models/stability-ai/sdxl/predictions", &json!({ "input": input }));
    let path = format!("/v1/predictions/{}", made["id"].as_str().expect("an id"));
    wait("steps", || (service.get(&path).1["status"] == "processing").then_some(()));
    service.process.signal("-TERM");
    assert_eq!(service.process.ends(), Some(0));
    let again = Service::start(&here, &["--workers", "0"]);
    let job = again.get(&path).1;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(again.file(job["output"][0].as_str().expect("a picture"))[1..4], *b"PNG");
}
