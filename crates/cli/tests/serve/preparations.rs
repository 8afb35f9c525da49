//! Preparations, and trainings on what they made.

use serde_json::{Value, json};

use crate::common::{Sandbox, png};
use crate::service::{Service, data_uri};
use crate::sets::{fields, set, tar, train_on, trained};

/// Prepares a training on a set, and returns the preparation at its end.
fn prepare(service: &Service, steps: usize, set: &str) -> Value {
    let mut input = fields(steps);
    input["input_images"] = set.into();
    let (status, made) = service.post("/v1/preparations", &json!({ "input": input }));
    assert_eq!((status, &made["status"]), (201, &json!("starting")), "{made}");
    service.over(&format!("/v1/preparations/{}", made["id"].as_str().expect("an id")))
}

/// Protects people from a training that they would not have wanted. Before it, they see each picture as the training will, its cost, and the faults of
/// the set. The training on the prepared set has the weights of a training on the pictures themselves.
#[test]
fn a_training_is_prepared() {
    let here = Sandbox::new();
    let weights = trained(&here, 4);
    let service = Service::start(&here, &[]);
    let done = prepare(&service, 4, &data_uri("application/x-tar", &set()));
    assert_eq!(done["status"], "succeeded", "{done}");
    let output = &done["output"];
    let pictures = output["pictures"].as_array().expect("pictures");
    let names: Vec<&str> = pictures.iter().filter_map(|picture| picture["name"].as_str()).collect();
    assert_eq!(names, ["0.png", "1.png", "2.png", "3.png"], "{output}");
    assert_eq!(pictures[0]["caption"], "a photo of TOK");
    assert_eq!((&pictures[0]["size"], &pictures[0]["mask"]), (&json!([80, 70]), &Value::Null));
    for url in [&pictures[3]["picture"], &output["contact_sheet"]] {
        assert!(service.file(url.as_str().expect("an address")).starts_with(b"\x89PNG"));
    }
    let forecast = &output["forecast"];
    assert_eq!(forecast["steps"], 4);
    assert!(
        forecast["seconds"].as_f64() > Some(0.0) && forecast["bytes"].as_u64() > Some(1 << 20),
        "{forecast}"
    );
    assert!(done["logs"].as_str().is_some_and(|logs| logs.contains("4 pictures, each as 64 × 64")), "{done}");

    let job = service.over(&train_on(&service, 4, output["set"].as_str().expect("an address")));
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(service.file(job["output"]["weights"].as_str().expect("an address")), weights);
}

/// Protects clients with a set that cannot be used: the error says so in one line, which begins with the field, whatever is wrong with which file.
#[test]
fn sets_that_cannot_be_used() {
    let here = Sandbox::new();
    let service = Service::start(&here, &[]);
    let picture = png(80, 70, &[90; 80 * 70 * 3]);
    let cut = &picture[..40];
    let large = [&picture[..16], &[0, 1, 0, 0, 0, 1, 0, 0], &picture[24..]].concat();
    for (files, part) in [
        (&[][..], "no picture in the set"),
        (&[("a.txt", &b"a photo of TOK"[..])], "no picture in the set"),
        (&[("a.png", cut)], "a.png cannot be read"),
        (&[("a.png", &large[..])], "a.png cannot be read"),
        (&[("../a.png", &picture[..])], "a.png"),
        (&[("a.png", &picture[..]), ("a.txt", b"\xff\xfe\x00")], "a.txt: expected UTF-8"),
        (&[("a.png", &picture[..]), ("a.mask.png", cut)], "a.mask.png"),
        (&[("a.png", &picture[..]), ("captions.csv", b"\x00\x01")], "captions.csv"),
    ] {
        let job = prepare(&service, 4, &data_uri("application/x-tar", &tar(files)));
        let error = job["error"].as_str().unwrap_or_else(|| panic!("{job}"));
        let says = error.starts_with("input_images: ") && error.contains(part) && error.lines().count() == 1;
        assert!(says && !error.contains("data/work"), "{part}: {error}");
    }
    let job = prepare(&service, 4, &data_uri("application/zip", b"no archive"));
    let error = job["error"].as_str().unwrap_or_else(|| panic!("{job}"));
    assert!(error.starts_with("input_images: ") && !error.contains("data/work"), "{error}");
}
