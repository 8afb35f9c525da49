//! Trainings, and what becomes of them when a worker dies or ends.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{Sandbox, png};
use crate::service::{Process, Service, command, data_uri, files, model, wait};

/// A tar file with four pictures.
fn set() -> Vec<u8> {
    let mut tar = Vec::new();
    for i in 0..4_u8 {
        let pixel = |n: usize| [(n % 80 * 3) as u8, (n / 80 * 3) as u8 ^ (i * 50), i * 60];
        let file = png(80, 70, &(0..80 * 70).flat_map(pixel).collect::<Vec<u8>>());
        let mut head = [0_u8; 512];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &format!("{i}.png"));
        put(100, "0000644\0");
        put(124, &format!("{:011o}\0", file.len()));
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(head);
        tar.extend(&file);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend([0; 1024]);
    tar
}

/// The fields of a short training.
fn fields(steps: usize) -> Value {
    json!({ "resolution": 64, "train_batch_size": 2, "lora_rank": 4, "seed": 3, "max_train_steps": steps,
        "checkpointing_steps": 2, "token_string": "TOK", "caption_prefix": "a photo of TOK, " })
}

/// The weights that `calotype train` makes.
fn trained(here: &Sandbox, steps: usize) -> Vec<u8> {
    here.write("set.tar", set());
    let mut args =
        vec!["train".to_owned(), "--run-dir".into(), "alone".into(), "--input-images=set.tar".into()];
    args.extend(model());
    for (name, value) in fields(steps).as_object().expect("fields") {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        args.push(format!("--{}={text}", name.replace('_', "-")));
    }
    let ended = here.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    fs::read(here.path("alone/trained_model.tar")).expect("weights")
}

/// Makes a training, and returns its path.
fn train(service: &Service, steps: usize) -> String {
    let mut input = fields(steps);
    input["input_images"] = data_uri("application/x-tar", &set()).into();
    let versions = service.get("/v1/models/stability-ai/sdxl/versions").1;
    let version = versions["results"][0]["id"].as_str().unwrap_or_else(|| panic!("{versions}"));
    let path = format!("/v1/models/stability-ai/sdxl/versions/{version}/trainings");
    let (status, made) = service.post(&path, &json!({ "destination": "me/fox", "input": input }));
    assert_eq!((status, &made["status"]), (201, &json!("starting")), "{made}");
    format!("/v1/trainings/{}", made["id"].as_str().expect("an id"))
}

/// The checkpoints in the storage.
fn checkpoints(here: &Sandbox) -> Vec<PathBuf> {
    let is_list = |path: &PathBuf| {
        let text = path.to_string_lossy();
        text.contains("/checkpoints/") && text.ends_with(".json") && !text.contains("/work/")
    };
    files(&here.path("data")).into_iter().filter(is_list).collect()
}

/// Protects trainings over HTTP: the weights are those of the command line to the byte; they are a version of the destination, and a prediction
/// with it is made with them. The checkpoints are gone.
#[test]
fn a_version_is_trained() {
    let here = Sandbox::new();
    let weights = trained(&here, 4);
    let service = Service::start(&here, &[]);
    let job = service.over(&train(&service, 4));
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
    assert!(checkpoints(&here).is_empty());
    let version = job["output"]["version"].as_str().expect("a version");
    let id = version.strip_prefix("me/fox:").expect("of the destination");
    let input = json!({ "prompt": "TOK", "seed": 1, "width": 64, "height": 64, "num_inference_steps": 2 });
    let picture = |version: &str| {
        let (status, made) = service.post("/v1/predictions", &json!({ "version": version, "input": input }));
        assert_eq!(status, 201, "{made}");
        let done = service.over(&format!("/v1/predictions/{}", made["id"].as_str().expect("an id")));
        assert_eq!(done["status"], "succeeded", "{done}");
        service.file(done["output"][0].as_str().expect("a picture"))
    };
    let with = picture(id);
    let mut args = vec!["predict", "--prompt", "TOK", "--seed", "1", "--width", "64", "--height", "64"];
    let model = model();
    args.extend(["--num-inference-steps", "2", "--replicate-weights", "alone/trained_model.tar"]);
    args.extend(model.iter().map(String::as_str));
    assert_eq!(here.run(&args).code, Some(0));
    assert_eq!(with, fs::read(here.path("out-0.png")).expect("a picture"));
}

/// Protects hours of work: a worker that is killed in a training leaves its checkpoints in the storage, and no process; the next worker goes on
/// from there, and ends with the bytes of a training that nobody has disturbed.
#[test]
fn a_killed_worker() {
    let here = Sandbox::new();
    let weights = trained(&here, 12);
    let service = Service::start(&here, &["--workers", "0", "--lease", "2"]);
    let worker = || Process::start(command(&here, "worker", &["--lease", "2", "--only", "train"]));
    let mut first = worker();
    let path = train(&service, 12);
    wait("a checkpoint", || (checkpoints(&here).len() > 1).then_some(()));
    first.child.kill().expect("killed");
    first.child.wait().expect("ends");
    let _second = worker();
    let job = service.over(&path);
    assert_eq!(job["status"], "succeeded", "{job}");
    let logs = job["logs"].as_str().expect("text");
    assert!(logs.contains(" from step "), "the second goes on: {logs}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
}

/// Protects trainings from deployments: a worker that is asked to end leaves a checkpoint and ends without an error; the training is not
/// counted as one that kills workers, and a worker that computes one job ends with the same bytes.
#[test]
fn a_worker_that_ends() {
    let here = Sandbox::new();
    let weights = trained(&here, 12);
    let service = Service::start(&here, &["--workers", "0"]);
    let path = train(&service, 12);
    for _ in 0..4 {
        let mut worker = Process::start(command(&here, "worker", &["--only", "train"]));
        let before = checkpoints(&here);
        wait("a checkpoint", || (checkpoints(&here) != before).then_some(()));
        worker.signal("-TERM");
        assert_eq!(worker.ends(), Some(0));
        if service.get(&path).1["status"] == "succeeded" {
            break;
        }
    }
    let mut last = Process::start(command(&here, "worker", &["--once"]));
    assert_eq!(last.ends(), Some(0));
    let job = service.over(&path);
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
}
