//! Trained weights in every layout, on the tiny model: pictures against diffusers, round trips, and what a pipeline
//! keeps from one request to the next.

mod files;
mod pictures;
#[path = "../plan/mod.rs"]
mod plan;
mod refused;
#[path = "../temp/mod.rs"]
mod temp;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::{AdapterError, Adapters, LoraPair, Modules, SafetensorsFile, TrainedWeights};
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_sdxl::prompt::PromptEncoder;
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
    Pipeline::open(
        &golden().join("pipeline"),
        Options { dtype, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode },
    )
    .expect("the tiny model")
}

fn plan(request: Map<String, Value>) -> PredictPlan {
    plan::plan(&request.into())
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
