//! Whole models that `export` writes, and `predict` with them.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Sandbox, tiny_model};

/// A LoRA of the tiny model.
fn lora() -> PathBuf {
    tiny_model().join("../adapters/kohya.safetensors")
}

/// The pixels of a picture of 32 × 32.
fn picture(here: &Sandbox, more: &[&str]) -> Vec<u8> {
    let mut args = vec!["predict", "--prompt", "a photo", "--num-inference-steps", "2", "--seed", "7", "-q"];
    args.extend(["--width", "32", "--height", "32", "--dtype", "f32", "-o", "out"]);
    args.extend(more);
    let ended = here.run(&args);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let file = std::io::BufReader::new(fs::File::open(here.path(ended.stdout.trim_end())).expect("a file"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("all pixels");
    pixels
}

/// Protects the product: a model with LoRA merged in, as a folder and as a single file, gives the picture of the model with the LoRA
/// beside it; the same export gives the same bytes.
#[test]
fn a_merged_model_gives_the_picture_of_its_parts() {
    let here = Sandbox::new();
    let (model, lora) = (tiny_model(), lora());
    let (model, lora) = (model.to_str().expect("text"), lora.to_str().expect("text"));
    let weights = format!("replicate_weights=@{lora}");
    let want = picture(&here, &["--model", model, "-i", &weights, "--lora-scale", "0.7"]);
    assert_ne!(want, picture(&here, &["--model", model]));
    let export = |format: &str, to: &str| {
        let scale = ["--scale", "0.7", "--dtype", "f32"];
        let args = ["export", lora, "--format", format, "--model", model, "-o", to];
        let ended = here.run(&[&args[..], &scale].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let warned = ended.stderr.contains("give the file together with --config");
        assert_eq!(warned, format == "single-file", "the tokenizer is not CLIP's: {}", ended.stderr);
    };
    export("model-folder", "folder");
    assert_eq!(picture(&here, &["--model", "folder"]), want);
    export("single-file", "a.safetensors");
    export("single-file", "b.safetensors");
    assert_eq!(picture(&here, &["--model", "a.safetensors", "--config", model]), want);
    let read = |name: &str| fs::read(here.path(name)).expect("written");
    assert!(read("a.safetensors") == read("b.safetensors"));
    // There and back again.
    let args = ["export", "--format", "model-folder", "--model", "a.safetensors", "--config", model];
    let ended = here.run(&[&args[..], &["-o", "back", "--dtype", "f32"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let unet = "unet/diffusion_pytorch_model.safetensors";
    assert!(read(&format!("back/{unet}")) == read(&format!("folder/{unet}")));
}

/// Protects the pocket model as a single file: its tokenizer comes from `--config pocket`, by name.
#[test]
fn pocket_as_a_single_file() {
    let here = Sandbox::new();
    let ended =
        here.run(&["export", "--format", "single-file", "--model", "pocket", "-o", "pocket.safetensors"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let single = picture(&here, &["--model", "pocket.safetensors", "--config", "pocket"]);
    assert_eq!(single, picture(&here, &["--model", "pocket"]));
}

/// Protects the checks of an export: each is made before anything is written.
#[test]
fn wrong_exports_are_refused() {
    let here = Sandbox::new();
    let (model, lora) = (tiny_model(), lora());
    let (model, lora) = (model.to_str().expect("text"), lora.to_str().expect("text"));
    here.assert_refused(&["export", lora, "--format", "single-file", "-o", "x.safetensors"], "--model");
    here.assert_refused(
        &["export", lora, lora, "--format", "kohya", "-o", "x.safetensors"],
        "TRAINED: expected one",
    );
    here.assert_refused(
        &["export", lora, "--format", "kohya", "--scale", "2", "-o", "x.safetensors"],
        "--scale",
    );
    fs::create_dir(here.path("there")).expect("made");
    let args = ["export", "--format", "model-folder", "--model", model, "-o", "there"];
    here.assert_refused(&args, "-o there: expected a folder to be made");
    fs::remove_dir(here.path("there")).expect("removed");
    let args = ["export", "none.tar", "--format", "model-folder", "--model", model, "-o", "there"];
    here.assert_refused(&args, "none.tar");
}
