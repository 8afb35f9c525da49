//! Trained weights in every layout, on the tiny model: pictures against diffusers, round trips, and what a pipeline
//! keeps from one request to the next.

mod temp;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_sdxl::adapters::{AdapterError, LoraPair, Modules, SafetensorsFile, TrainedWeights};
use calotype_sdxl::config::ModelFolder;
use calotype_sdxl::pipeline::{Image, Options, Pipeline, Rng};
use calotype_sdxl::request::{PredictInput, PredictPlan};
use calotype_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use temp::{Temp, golden};

const LAYOUTS: [&str; 3] = ["diffusers.safetensors", "kohya.safetensors", "trained_model.tar"];

fn file(name: &str) -> PathBuf {
    golden().join("adapters").join(name)
}

fn modules() -> Modules {
    let folder = ModelFolder::open(&golden().join("pipeline")).expect("the tiny model");
    Modules::of(&folder, &folder.configs().expect("its configs")).expect("its layers")
}

fn read(path: &Path) -> TrainedWeights {
    TrainedWeights::read(path, Some(&modules())).expect("trained weights")
}

fn open(dtype: DType) -> Pipeline {
    Pipeline::open(&golden().join("pipeline"), Options { dtype, rng: Rng::Cpu }).expect("the tiny model")
}

fn plan(request: Map<String, Value>) -> PredictPlan {
    PredictPlan::new(PredictInput::from_command_line(request).expect("a valid request"))
}

fn predict(pipeline: &Pipeline, plan: &PredictPlan) -> Image {
    pipeline.predict(plan, &mut |_| ControlFlow::Continue(())).expect("a picture").remove(0)
}

/// A small request with these files.
fn small(files: &[PathBuf], lora_scale: f64) -> PredictPlan {
    let request = json!({
        "prompt": "a TOK", "width": 32, "height": 24, "num_inference_steps": 2, "seed": 5, "lora_scale": lora_scale
    });
    let plan = plan(request.as_object().expect("an object").clone());
    PredictPlan { replicate_weights: files.to_vec(), ..plan }
}

fn bytes(file: &SafetensorsFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write(&mut bytes).expect("written");
    assert_eq!(bytes.len() as u64, file.size());
    bytes
}

fn tar(weights: &TrainedWeights) -> Vec<u8> {
    let mut bytes = Vec::new();
    weights.to_tar().expect("the cog layout").write(&mut bytes).expect("written");
    bytes
}

/// Protects the product: pictures with LoRA in each layout, of any scale, with new tokens in both prompts, and with LoRA of
/// the text encoders, are diffusers' own, within 1 of 255.
#[test]
fn pictures_equal_diffusers() {
    let bytes = std::fs::read(file("pictures.safetensors")).expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
    let requests: HashMap<String, String> = header.metadata().clone().expect("metadata").into_iter().collect();
    let pictures = SafeTensors::deserialize(&bytes).expect("golden file");
    let pipeline = open(DType::F32);
    assert_eq!(pictures.len(), 4);
    for (name, want) in pictures.tensors() {
        let mut request: Map<String, Value> = serde_json::from_str(&requests[&name]).expect("a request");
        let path = file(request["replicate_weights"].as_str().expect("a name"));
        request.insert("replicate_weights".into(), path.to_str().expect("text").into());
        let found = predict(&pipeline, &plan(request)).rgb;
        assert_eq!(found.len(), want.data().len(), "{name}");
        let worst = found.iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{name}: differs by {worst:?} of 255");
    }
}
