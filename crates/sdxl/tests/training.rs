//! Whole trainings against those of `tools/reference/trainer.py`: the same losses, and the same weights at the end.

mod temp;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use calotype_sdxl::adapters::TrainedWeights;
use calotype_sdxl::config::ModelFolder;
use calotype_sdxl::dataset::Example;
use calotype_sdxl::request::{FileType, Method, TrainOptions, TrainPlan};
use calotype_sdxl::train::{StepReport, Trainer, TrainerOptions};
use calotype_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A golden file's f32 tensors: shape and values.
fn tensors(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(golden(name)).expect("golden file");
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let f32s = file.tensors().into_iter().filter(|(_, view)| view.dtype() == safetensors::Dtype::F32);
    f32s.map(|(name, view)| (name, (view.shape().to_vec(), values(view.data())))).collect()
}

/// The set that the reference trained on.
fn examples() -> Vec<Example> {
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

fn settings(case: &str) -> Value {
    let json = fs::read_to_string(golden(&format!("training/{case}.json"))).expect("golden file");
    serde_json::from_str::<Value>(&json).expect("golden JSON")["settings"].clone()
}

fn plan(s: &Value) -> TrainPlan {
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
        options: TrainOptions {
            gradient_accumulation_steps: whole("gradient_accumulation_steps"),
            max_grad_norm: s["max_grad_norm"].as_f64(),
            min_snr_gamma: s["min_snr_gamma"].as_f64(),
            noise_offset: number("noise_offset"),
            caption_dropout: number("caption_dropout"),
            textual_inversion_only: s["kind"] == "ti",
            optimizer: Some(s["optimizer"].as_str().expect("optimizer").into()),
        },
    }
}

const F32: TrainerOptions = TrainerOptions { dtype: DType::F32, recompute: false };

/// The tiny model, with the case's changes of its scheduler.
fn model(s: &Value) -> temp::Temp {
    let copy = temp::copy(&golden("pipeline"));
    let path = copy.path().join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (key, value) in s["scheduler"].as_object().expect("scheduler") {
        config[key] = value.clone();
    }
    fs::write(&path, config.to_string()).unwrap();
    copy
}

fn trainer(case: &str, options: TrainerOptions) -> Trainer {
    let s = settings(case);
    let model = model(&s);
    let folder = ModelFolder::open(model.path()).expect("the golden folder opens");
    Trainer::new(&folder, plan(&s), &examples(), options).expect("a trainer")
}

fn run(trainer: &mut Trainer) -> Vec<StepReport> {
    (0..trainer.plan().steps).map(|_| trainer.step().expect("a step")).collect()
}

/// The largest difference, over the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |m, (f, e)| m.max((f - e).abs())) / scale
}

/// Rows are compared by how far they have moved.
fn check_rows(found: &Tensor, all: &(Vec<usize>, Vec<f32>)) {
    let count = found.numel();
    let (first, last) = (&all.1[..count], &all.1[all.1.len() - count..]);
    let moved = |values: &[f32]| values.iter().zip(first).map(|(x, first)| x - first).collect::<Vec<_>>();
    let error = difference(&moved(found.f32s()), &moved(last));
    assert!(error < 2e-4, "embeddings differ by {error}");
}

fn check(case: &str) {
    let golden = tensors(&format!("training/{case}.safetensors"));
    let mut trainer = trainer(case, F32);
    let reports = run(&mut trainer);
    let column = |of: fn(&StepReport) -> f64| reports.iter().map(|r| of(r) as f32).collect::<Vec<_>>();
    for (name, found, tolerance) in [
        ("losses", column(|r| r.loss), 1e-5),
        ("grad_norms", column(|r| r.grad_norm), 5e-5),
        ("lr", column(|r| r.lr), 1e-6),
        ("ti_lr", column(|r| r.ti_lr), 1e-6),
    ] {
        let error = difference(&found, &golden[name].1);
        assert!(error < tolerance, "{case}: {name} differ by {error}:\n{found:?}\n{:?}", golden[name].1);
    }
    let TrainedWeights { lora, embeddings, .. } = trainer.trained_weights();
    let embeddings = embeddings.expect("embeddings");
    for (i, rows) in embeddings.iter().enumerate() {
        check_rows(rows, &golden[&format!("rows.{i}")]);
    }
    let count = golden.keys().filter(|name| name.contains("_lora.")).count();
    assert_eq!(2 * lora.len(), count, "{case}: LoRA tensors");
    for (path, pair) in &lora {
        let (attention, projection) = path.trim_end_matches(".0").rsplit_once('.').expect("a path");
        for (part, tensor, tolerance) in [("down", &pair.down, 1e-5), ("up", &pair.up, 2e-4)] {
            let (shape, values) = &golden[&format!("{attention}.processor.{projection}_lora.{part}.weight")];
            assert_eq!(tensor.shape(), shape);
            let error = difference(tensor.f32s(), values);
            assert!(error < tolerance, "{case}: {path}.{part} differs by {error}");
        }
    }
}

/// LoRA with textual inversion, past the pivot.
#[test]
fn lora_and_textual_inversion() {
    check("lora_ti");
}

/// The embeddings alone, over all steps.
#[test]
fn textual_inversion_alone() {
    check("ti_alone");
}

/// Every option at once: accumulation, a linear schedule, clipping, min-SNR, noise offset, caption dropout.
#[test]
fn every_option() {
    check("lora_linear_accumulate_clip_snr_offset_dropout");
}

/// A model that predicts velocities.
#[test]
fn v_prediction() {
    check("v_prediction");
}

/// Blocks that are computed again on the way back give the same bytes as ones that are kept, whatever the threads.
#[test]
fn recomputation_and_threads_change_nothing() {
    let run = |recompute, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut trainer = trainer("lora_ti", TrainerOptions { recompute, ..F32 });
            let reports: Vec<_> = (0..3).map(|_| trainer.step().expect("a step")).collect();
            (reports, trainer.trained_weights())
        })
    };
    let kept = run(false, 1);
    assert!(kept == run(true, 1), "with recomputation");
    assert!(kept == run(false, 3), "with three threads");
}
