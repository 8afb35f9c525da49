//! The reference's cases on the tiny golden model, for the tests of training.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_models::ModelFolder;
use calotype_tensor::DType;
use calotype_train::dataset::Example;
use calotype_train::dataset::FileType;
use calotype_train::stop::Stop;
use calotype_train::{Method, TrainOptions, TrainPlan};
use calotype_train::{StepReport, Trainer, TrainerOptions};
use safetensors::SafeTensors;
use serde_json::Value;

use super::temp::{self, Temp};

/// A golden file.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden").join(name)
}

/// A golden file's f32 tensors: shape and values.
pub fn tensors(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(golden(name)).expect("golden file");
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let f32s = file.tensors().into_iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32);
    f32s.map(|(name, view)| (name, (view.shape().to_vec(), values(view.data())))).collect()
}

/// The set that the reference trained on.
pub fn examples() -> Vec<Example> {
    let bytes = fs::read(golden("training/set.safetensors")).expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
    let metadata = header.metadata().clone().expect("metadata");
    let rows: Vec<Value> = serde_json::from_str(&metadata["examples"]).expect("examples");
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let bytes = |name: String| file.tensor(&name).ok().map(|view| view.data().to_vec());
    let pair = |v: &Value| [0, 1].map(|i| v[i].as_u64().expect("a number") as usize);
    let example = |(i, row): (usize, &Value)| Example {
        name: format!("{i}.png"),
        caption: row["caption"].as_str().expect("a caption").into(),
        rgb: bytes(format!("picture.{i}")).expect("a picture"),
        mask: bytes(format!("mask.{i}")),
        original_size: pair(&row["original_size"]),
        crop_top_left: pair(&row["crop_top_left"]),
    };
    rows.iter().enumerate().map(example).collect()
}

/// The settings of a case, as the reference has them.
pub fn settings(case: &str) -> Value {
    let json = fs::read_to_string(golden(&format!("training/{case}.json"))).expect("golden file");
    serde_json::from_str::<Value>(&json).expect("golden JSON")["settings"].clone()
}

/// A case as a request.
pub fn plan(s: &Value) -> TrainPlan {
    let number = |key: &str| s[key].as_f64().unwrap_or_else(|| panic!("{key}"));
    let whole = |key: &str| number(key) as usize;
    let (method, lr) = match s["kind"].as_str().expect("kind") {
        "lora" => (Method::Lora { rank: whole("lora_rank") }, number("lora_lr")),
        "full" => (Method::Full, number("unet_learning_rate")),
        _ => (Method::TextualInversion, number("ti_lr")),
    };
    TrainPlan {
        input_images: "set.zip".into(),
        input_images_filetype: FileType::Infer,
        seed: s["seed"].as_u64().expect("seed"),
        resolution: whole("resolution"),
        train_batch_size: whole("train_batch_size"),
        steps: whole("max_train_steps"),
        method,
        lr,
        ti_lr: number("ti_lr"),
        lr_scheduler: serde_json::from_value(s["lr_scheduler"].clone()).expect("lr_scheduler"),
        lr_warmup_steps: whole("lr_warmup_steps"),
        token_string: "TOK".into(),
        caption_prefix: "a photo of TOK".into(),
        crop_based_on_salience: true,
        checkpointing_steps: 200,
        pivot: None,
        options: TrainOptions {
            gradient_accumulation_steps: whole("gradient_accumulation_steps"),
            max_grad_norm: s["max_grad_norm"].as_f64().or(Some(0.0)),
            min_snr_gamma: s["min_snr_gamma"].as_f64(),
            noise_offset: number("noise_offset"),
            caption_dropout: number("caption_dropout"),
            textual_inversion_only: s["kind"] == "ti",
            optimizer: Some(s["optimizer"].as_str().expect("optimizer").into()),
            lora_layers: serde_json::from_value(s["lora_layers"].clone()).unwrap_or_default(),
            stop: Stop::Off,
        },
    }
}

pub const F32: TrainerOptions = TrainerOptions { dtype: DType::F32, recompute: false };

/// The tiny model, with the case's changes of its scheduler.
pub fn model(s: &Value) -> Temp {
    let copy = temp::copy(&golden("pipeline"));
    let path = copy.path().join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a scheduler config"))
        .expect("a scheduler config");
    for (key, value) in s["scheduler"].as_object().expect("scheduler") {
        config[key] = value.clone();
    }
    fs::write(&path, config.to_string()).expect("a scheduler config");
    copy
}

/// A case before its first step.
pub fn trainer(case: &str, options: TrainerOptions) -> Trainer {
    let s = settings(case);
    let model = model(&s);
    let folder = ModelFolder::open(model.path()).expect("the golden folder opens");
    Trainer::new(&folder, plan(&s), &examples(), options, &mut |_| ControlFlow::Continue(()))
        .expect("a trainer")
}

/// All of its steps.
pub fn run(trainer: &mut Trainer) -> Vec<StepReport> {
    (0..trainer.plan().steps).map(|_| trainer.step().expect("a step")).collect()
}
