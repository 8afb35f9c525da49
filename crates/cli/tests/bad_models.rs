//! Broken model folders: exit code 2, one line that names the file, and nothing written.

mod common;

use std::fs;
use std::io::Write;

use common::{Sandbox, copy_folder, tiny_model};
use serde_json::Value;

/// The tiny model's weights.
const WEIGHTS: [&str; 4] = [
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
];

/// Runs on a copy of the tiny model whose `file` has gone through `breaking`; it must be refused, by that name.
fn assert_breaks(file: &str, breaking: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    let here = Sandbox::new();
    copy_folder(&tiny_model(), &here.path("model"));
    let path = here.path("model").join(file);
    match breaking(fs::read(&path).expect("a file")) {
        Some(bytes) => fs::write(&path, bytes).expect("written"),
        None => fs::remove_file(&path).expect("removed"),
    }
    let small = ["--width", "64", "--height", "64", "--num-inference-steps", "1"];
    here.assert_refused(&[&["predict", "--model", "model", "-o", "out"][..], &small].concat(), file);
}

/// `bytes` with its safetensors header replaced, and the header's length made to fit.
fn with_header(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header = change(std::str::from_utf8(&bytes[8..8 + length]).expect("text"));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat()
}

/// Protects: files that are missing.
#[test]
fn missing_files() {
    for file in
        ["model_index.json", "unet/config.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"]
    {
        assert_breaks(file, |_| None);
    }
}

/// Protects: a training at a resolution that the model's VAE cannot halve often enough is refused by name before the set is
/// read; at one that it can, it comes further. The same of a picture's sides.
#[test]
fn a_vae_of_many_levels() {
    let here = Sandbox::new();
    copy_folder(&tiny_model(), &here.path("model"));
    let path = here.path("model/vae/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    config["block_out_channels"] = vec![8; 8].into();
    config["down_block_types"] = vec!["DownEncoderBlock2D"; 8].into();
    config["up_block_types"] = vec!["UpDecoderBlock2D"; 8].into();
    fs::write(&path, config.to_string()).expect("written");
    here.write("set/notes.txt", "no picture");
    let train = |resolution: &str, says: &str| {
        let set =
            ["--model", "model", "-i", "input_images=@set", "--run-dir", "run", "--resolution", resolution];
        here.assert_refused(&[&["train"][..], &set].concat(), says);
    };
    train("64", "resolution: expected a multiple of 128 (");
    train("256", "input_images: ");
    here.assert_refused(
        &["predict", "--model", "model", "--width", "64", "--height", "128"],
        "width: expected a multiple of 128",
    );
    here.assert_refused(
        &["predict", "--model", "model", "--width", "128", "--height", "8"],
        "height: expected a multiple of 128",
    );
}

/// Protects: JSON files that end early, or hold something else.
#[test]
fn broken_configs() {
    for file in ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder_2/config.json"] {
        assert_breaks(file, |bytes| Some(bytes[..bytes.len() / 2].to_vec()));
        assert_breaks(file, |_| Some(b"[]".to_vec()));
    }
}

/// Protects: weights that end early, at any place.
#[test]
fn truncated_weights() {
    for file in WEIGHTS {
        for keep in [0, 4, 8, 100] {
            assert_breaks(file, |bytes| Some(bytes[..keep].to_vec()));
        }
        assert_breaks(file, |bytes| Some(bytes[..bytes.len() - 1].to_vec()));
    }
}

/// Protects: weights whose header lies about its own length, or about where the tensors are.
#[test]
fn lying_headers() {
    for file in WEIGHTS {
        for length in [u64::MAX, 1 << 40, 3] {
            assert_breaks(file, |bytes| Some([&length.to_le_bytes(), &bytes[8..]].concat()));
        }
        for (truth, lie) in [
            ("\"data_offsets\":[0,", "\"data_offsets\":[4,"),
            ("\"dtype\":\"F32\"", "\"dtype\":\"F64\""),
            ("\"shape\":[", "\"shape\":[7,"),
        ] {
            assert_breaks(file, |bytes| Some(with_header(&bytes, |h| h.replacen(truth, lie, 1))));
        }
    }
}

/// Protects: a tensor that no network has, and so one that is missing, in any file: found before the sampling.
#[test]
fn foreign_tensors() {
    for file in WEIGHTS {
        assert_breaks(file, |bytes| Some(with_header(&bytes, |h| h.replacen(".bias\":", ".bios\":", 1))));
    }
}

/// What people have in place of a file, and what is to be said of it.
const SOMETHING_ELSE: [(&[u8], &str); 5] = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5135149760\n", "a Git LFS pointer"),
    (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "a web page (HTML)"),
    (b"PK\x03\x04\x00\x00\x00\x00\x00\x00archive/data.pkl", "zip"),
    (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "compressed (gzip)"),
    (b"", "empty"),
];

/// Protects: a file that is something else is called by its name, among a model's weights and among its configs.
#[test]
fn files_that_are_something_else() {
    for (bytes, says) in SOMETHING_ELSE {
        for file in ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/vocab.json"] {
            let here = Sandbox::new();
            copy_folder(&tiny_model(), &here.path("model"));
            fs::write(here.path("model").join(file), bytes).expect("written");
            here.assert_refused(&["predict", "--model", "model", "-o", "out"], &format!("{file}: "));
            here.assert_refused(&["predict", "--model", "model", "-o", "out"], says);
        }
    }
}

/// Protects: the same of trained weights; a header that has gigabytes is not read (the file has none of them on disk).
#[test]
fn trained_weights_that_are_something_else() {
    let here = Sandbox::new();
    let model = tiny_model();
    let args =
        ["predict", "--model", model.to_str().expect("text"), "--replicate-weights", "lora.safetensors"];
    for (bytes, says) in SOMETHING_ELSE {
        here.write("lora.safetensors", bytes);
        here.assert_refused(&args, says);
    }
    fs::remove_file(here.path("lora.safetensors")).expect("there");
    let file = fs::File::create(here.path("lora.safetensors")).expect("made");
    (&file).write_all(&(3u64 << 30).to_le_bytes()).expect("written");
    file.set_len(4 << 30).expect("sparse");
    let ended = here.run(&args);
    let says = "expected a header of at most 100000000 bytes, found 3221225472";
    assert!(ended.code == Some(2) && ended.stderr.contains(says), "{}", ended.stderr);
}

/// Protects single files: a checkpoint is read, and any other file is refused with a line that says what to do.
#[test]
fn a_checkpoint_in_one_file() {
    let here = Sandbox::new();
    here.write("sdxl.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let model = ["predict", "--model", "sdxl.safetensors"];
    here.assert_refused(&model, "sdxl.safetensors: expected an SDXL model in a single file, found none");
    let header = r#"{"cond_stage_model.transformer.x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    here.write("old.safetensors", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    here.assert_refused(
        &["train", "--model", "old.safetensors", "-i", "input_images=@."],
        "Stable Diffusion 1.x",
    );
    here.write("sdxl.ckpt", b"PK\x03\x04");
    here.assert_refused(
        &["predict", "--model", "sdxl.ckpt"],
        "found pickled weights, which may run any program: in Python, diffusers' \
         StableDiffusionXLPipeline.from_single_file(\"sdxl.ckpt\").save_pretrained(\"FOLDER\")",
    );
    here.write("text", b"hello");
    here.assert_refused(&["predict", "--model", "text"], "text: not a safetensors file");
    let tiny = tiny_model();
    let tiny = tiny.to_str().expect("text");
    here.assert_refused(&["predict", "--model", tiny, "--config", tiny], "--config");
    here.assert_refused(&["predict", "--model", tiny, "--vae", "sdxl.safetensors"], "expected a VAE");
    here.assert_refused(&["predict", "--model", tiny, "--vae", "none"], "--vae none");
}
