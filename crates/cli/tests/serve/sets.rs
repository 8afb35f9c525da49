//! A small set, and a short training on it.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Sandbox, png};
use crate::service::{Service, data_uri, model};

/// A tar file with four pictures.
pub fn set() -> Vec<u8> {
    let files = (0..4_u8).map(|i| {
        let pixel = |n: usize| [(n % 80 * 3) as u8, (n / 80 * 3) as u8 ^ (i * 50), i * 60];
        (format!("{i}.png"), png(80, 70, &(0..80 * 70).flat_map(pixel).collect::<Vec<u8>>()))
    });
    let files: Vec<_> = files.collect();
    tar(&files.iter().map(|(name, file)| (name.as_str(), file.as_slice())).collect::<Vec<_>>())
}

/// A tar file with these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, file) in files {
        let mut head = [0_u8; 512];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644\0");
        put(124, &format!("{:011o}\0", file.len()));
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(head);
        tar.extend(*file);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend([0; 1024]);
    tar
}

/// The fields of a short training.
pub fn fields(steps: usize) -> Value {
    json!({ "resolution": 64, "train_batch_size": 2, "lora_rank": 4, "seed": 3, "max_train_steps": steps,
        "checkpointing_steps": 2, "token_string": "TOK", "caption_prefix": "a photo of TOK, " })
}

/// The weights that `calotype train` makes.
pub fn trained(here: &Sandbox, steps: usize) -> Vec<u8> {
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
pub fn train(service: &Service, steps: usize) -> String {
    train_on(service, steps, &data_uri("application/x-tar", &set()))
}

/// Makes a training on the set with this address, and returns its path.
pub fn train_on(service: &Service, steps: usize, set: &str) -> String {
    let mut input = fields(steps);
    input["input_images"] = set.into();
    train_with(service, &input)
}

/// Makes a training with this input, and returns its path.
pub fn train_with(service: &Service, input: &Value) -> String {
    let versions = service.get("/v1/models/stability-ai/sdxl/versions").1;
    let version = versions["results"][0]["id"].as_str().unwrap_or_else(|| panic!("{versions}"));
    let path = format!("/v1/models/stability-ai/sdxl/versions/{version}/trainings");
    let (status, made) = service.post(&path, &json!({ "destination": "me/fox", "input": input }));
    assert_eq!((status, &made["status"]), (201, &json!("starting")), "{made}");
    format!("/v1/trainings/{}", made["id"].as_str().expect("an id"))
}
