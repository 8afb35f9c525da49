//! Trainings, and what becomes of them when a worker dies or ends.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::common::Sandbox;
use crate::service::{Process, Service, command, data_uri, files, model, wait};
use crate::sets::{fields, set, train, train_with, trained};

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
    wait("the checkpoints are gone", || checkpoints(&here).is_empty().then_some(()));
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
    let weights = trained(&here, 40);
    let service = Service::start(&here, &["--workers", "0", "--lease", "2"]);
    let worker = || Process::start(command(&here, "worker", &["--lease", "2", "--only", "train"]));
    let mut first = worker();
    let path = train(&service, 40);
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

/// Protects whoever has canceled a training and wants it after all: one that resumes it goes on from the last checkpoint, and ends with the bytes of a
/// training that nobody has disturbed.
#[test]
fn a_canceled_training_is_resumed() {
    let here = Sandbox::new();
    let weights = trained(&here, 40);
    let service = Service::start(&here, &[]);
    let path = train(&service, 40);
    wait("a checkpoint", || (checkpoints(&here).len() > 1).then_some(()));
    let (status, canceled) = service.post(&format!("{path}/cancel"), &json!({}));
    assert_eq!((status, &canceled["status"]), (200, &json!("canceled")), "{canceled}");
    let (status, made) = service.post(&format!("{path}/resume"), &json!({}));
    assert_eq!((status, &made["status"]), (201, &json!("starting")), "{made}");
    let job = service.over(&format!("/v1/trainings/{}", made["id"].as_str().expect("an id")));
    assert_eq!(job["status"], "succeeded", "{job}");
    let logs = job["logs"].as_str().expect("text");
    assert!(logs.contains(" from step "), "it goes on: {logs}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
}

/// Protects the steps since the last checkpoint of a training that is canceled: the process leaves one, the storage has it, and the training
/// that resumes begins there. The end has the bytes of a training that nobody has disturbed.
#[test]
fn a_canceled_training_keeps_its_last_step() {
    let here = Sandbox::new();
    let weights = trained(&here, 60);
    let service = Service::start(&here, &[]);
    let mut input = fields(60);
    input["input_images"] = data_uri("application/x-tar", &set()).into();
    input["checkpointing_steps"] = 1000.into(); // none but that of the beginning
    let path = train_with(&service, &input);
    let is_metrics = |path: &PathBuf| path.ends_with("run/metrics.jsonl");
    let metrics = || fs::read_to_string(files(&here.path("data")).into_iter().find(is_metrics)?).ok();
    wait("three steps", || metrics().filter(|text| text.lines().count() >= 3).map(drop));
    let (status, canceled) = service.post(&format!("{path}/cancel"), &json!({}));
    assert_eq!((status, &canceled["status"]), (200, &json!("canceled")), "{canceled}");
    let (status, made) = service.post(&format!("{path}/resume"), &json!({}));
    assert_eq!(status, 201, "{made}");
    let job = service.over(&format!("/v1/trainings/{}", made["id"].as_str().expect("an id")));
    assert_eq!(job["status"], "succeeded", "{job}");
    let logs = job["logs"].as_str().expect("text");
    assert!(logs.contains(" from step "), "it goes on: {logs}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
}
