//! Whole trainings against those of `tools/reference/trainer.py`: the same losses, and the same weights at the end.

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;
mod train_common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::process::Command;

use calotype_models::ModelFolder;
use calotype_sdxl::adapters::TrainedWeights;
use calotype_tensor::{DType, Tensor};
use calotype_train::TrainPlan;
use calotype_train::{StepReport, Trainer, TrainerOptions};
use serde_json::Value;
use train_common::{F32, examples, golden, model, plan, run, settings, tensors, trainer};

/// A golden file's: shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

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
    let tensors = tensors(&format!("training/{case}.safetensors"));
    let mut trainer = trainer(case, F32);
    let validation: Value =
        serde_json::from_str(&fs::read_to_string(golden("training/validation.json")).expect("golden file"))
            .expect("golden JSON");
    let before = trainer.validation_loss();
    let start = trainer.trained_weights().unet.into_iter().map(|(key, t)| (key, t.to_tensor()));
    let start: BTreeMap<String, Tensor> = start.collect();
    let reports = run(&mut trainer);
    for (i, found) in [before, trainer.validation_loss()].into_iter().enumerate() {
        let expected = validation[case][i].as_f64().expect("a validation loss");
        assert!(
            (found / expected - 1.0).abs() < 1e-5,
            "{case}: validation {i}: {found}, expected {expected}"
        );
    }
    let column = |of: fn(&StepReport) -> f64| reports.iter().map(|r| of(r) as f32).collect::<Vec<_>>();
    for (name, found, tolerance) in [
        ("losses", column(|r| r.loss), if start.is_empty() { 1e-5 } else { 5e-5 }),
        ("grad_norms", column(|r| r.grad_norm), if start.is_empty() { 5e-5 } else { 5e-4 }),
        ("lr", column(|r| r.lr), 1e-6),
        ("ti_lr", column(|r| r.ti_lr), 1e-6),
    ] {
        let error = difference(&found, &tensors[name].1);
        assert!(error < tolerance, "{case}: {name} differ by {error}:\n{found:?}\n{:?}", tensors[name].1);
    }
    if !start.is_empty() {
        check_full(&trainer, &start, &tensors, case);
    }
    let TrainedWeights { lora, embeddings, .. } = trainer.trained_weights();
    let embeddings = embeddings.expect("embeddings");
    for (i, rows) in embeddings.iter().enumerate() {
        check_rows(rows, &tensors[&format!("rows.{i}")]);
    }
    let count = tensors.keys().filter(|name| name.contains("lora.")).count();
    assert_eq!(2 * lora.len(), count, "{case}: LoRA tensors");
    for (path, pair) in &lora {
        for (part, tensor, tolerance) in [("down", &pair.down, 1e-5), ("up", &pair.up, 2e-4)] {
            let (shape, values) = &tensors[&format!("{}.{part}.weight", golden_name(path))];
            assert_eq!(tensor.shape(), shape);
            let error = difference(tensor.f32s(), values);
            assert!(error < tolerance, "{case}: {path}.{part} differs by {error}");
        }
    }
}

/// The name of a layer's LoRA in golden files.
fn golden_name(path: &str) -> String {
    match path.trim_end_matches(".0").rsplit_once('.') {
        Some((attention, projection)) if path.contains(".attn") => {
            format!("{attention}.processor.{projection}_lora")
        }
        _ => format!("{path}.lora"),
    }
}

/// A full fine-tune's tensors: all of them by how far they moved, some by each value's way.
fn check_full(trainer: &Trainer, start: &BTreeMap<String, Tensor>, tensors: &Tensors, case: &str) {
    let all = trainer.trained_weights().unet;
    let moved = |last: &[f32], key: &str| -> Vec<f32> {
        last.iter().zip(start[key].f32s()).map(|(last, start)| last - start).collect()
    };
    let mut norms = Vec::new();
    for (key, tensor) in &all {
        let found = moved(tensor.to_tensor().f32s(), key);
        norms.push(found.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32);
        let Some((shape, last)) = tensors.get(&format!("unet.{key}")) else { continue };
        assert_eq!(tensor.shape(), shape);
        let error = difference(&found, &moved(last, key));
        assert!(error < 5e-3, "{case}: {key} differs by {error}");
    }
    let error = difference(&norms, &tensors["change_norms"].1);
    assert!(error < 1e-3, "{case}: the tensors' ways differ by {error}");
}

/// LoRA with textual inversion, past the pivot.
#[test]
fn lora_and_textual_inversion() {
    check("lora_ti");
}

/// LoRA of every linear layer and convolution, with textual inversion.
#[test]
fn lora_of_all_layers() {
    check("lora_all");
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

/// The UNet itself, by AdamW: all gradients at once, clipped together.
#[test]
fn full_by_adamw() {
    check("full_adamw");
}

/// The UNet itself, by Adafactor: each tensor takes its step as soon as its gradient is known.
#[test]
fn full_by_adafactor() {
    check("full_adafactor");
}

/// A model that predicts velocities.
#[test]
fn v_prediction() {
    check("v_prediction");
}

/// Blocks that are computed again on the way back give the same bytes as ones that are kept, whatever the threads.
#[test]
fn recomputation_and_threads_change_nothing() {
    for case in ["lora_ti", "lora_all", "full_adafactor"] {
        recomputation_and_threads(case);
    }
}

fn recomputation_and_threads(case: &str) {
    let run = |recompute, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut trainer = trainer(case, TrainerOptions { recompute, ..F32 });
            let reports: Vec<_> = (0..3).map(|_| trainer.step().expect("a step")).collect();
            (reports, trainer.trained_weights())
        })
    };
    let kept = run(false, 1);
    assert!(kept == run(true, 1), "{case}: with recomputation");
    assert!(kept == run(false, 3), "{case}: with three threads");
}

/// A validation changes nothing, before the pivot and after it, and says the same when asked again.
#[test]
fn validation_changes_nothing() {
    let mut plain = trainer("lora_ti", F32);
    let expected = (run(&mut plain), plain.trained_weights(), plain.validation_loss());
    let mut asked = trainer("lora_ti", F32);
    let mut reports = Vec::new();
    for _ in 0..asked.plan().steps {
        assert_eq!(asked.validation_loss(), asked.validation_loss());
        reports.push(asked.step().expect("a step"));
    }
    assert!(expected == (reports, asked.trained_weights(), asked.validation_loss()));
}

const BF16: TrainerOptions = TrainerOptions { dtype: DType::BF16, ..F32 };

/// In bf16 a LoRA's losses are those of f32 but for the rounding.
#[test]
fn lora_in_bf16() {
    let losses =
        |options| run(&mut trainer("lora_ti", options)).iter().map(|r| r.loss as f32).collect::<Vec<_>>();
    let error = difference(&losses(BF16), &losses(F32));
    assert!(error > 0.0 && error < 0.02, "losses differ by {error}");
}

/// A full fine-tune moves in bf16 at the default learning rate, although bf16 itself has no numbers so near each other: each
/// tensor by a step of f32's length, and all of them in its direction.
#[test]
fn full_in_bf16_moves() {
    let settings = settings("full_adafactor");
    let model = model(&settings);
    let folder = ModelFolder::open(model.path()).expect("it opens");
    let moved = |options| {
        let plan = TrainPlan { lr: 1e-6, lr_warmup_steps: 0, ..plan(&settings) };
        let mut trainer =
            Trainer::new(&folder, plan, &examples(), options, &mut |_| ControlFlow::Continue(()))
                .expect("a trainer");
        let unet = |trainer: &Trainer| {
            trainer.trained_weights().unet.into_iter().map(|(key, t)| (key, t.to_tensor()))
        };
        let start: Vec<(String, Tensor)> = unet(&trainer).collect();
        trainer.step().expect("a step");
        let steps = unet(&trainer).zip(start).map(|((key, after), (_, before))| {
            let step = after.f32s().iter().zip(before.f32s()).map(|(a, b)| f64::from(*a) - f64::from(*b));
            (key, step.collect::<Vec<f64>>())
        });
        steps.collect::<Vec<_>>()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut both, mut squares) = (0.0, [0.0; 2]);
    for ((key, found), (_, expected)) in moved(BF16).iter().zip(&moved(F32)) {
        let [length, of_f32] = [found, expected].map(|step| dot(step, step).sqrt());
        assert!((0.8..1.25).contains(&(length / of_f32)), "{key}: {length}, in f32 {of_f32}");
        both += dot(found, expected);
        squares = [squares[0] + length * length, squares[1] + of_f32 * of_f32];
    }
    let cosine = both / (squares[0] * squares[1]).sqrt();
    assert!(cosine > 0.8 && cosine < 1.0 - 1e-6, "another direction, or no rounding: {cosine}");
}

/// The same where bf16 numbers are multiplied in pairs.
#[test]
fn bf16_in_pairs() {
    for test in ["lora_in_bf16", "full_in_bf16_moves"] {
        let again = Command::new(env::current_exe().expect("this program"))
            .args([test, "--exact"])
            .env("CALOTYPE_ISA", "emulated")
            .output();
        let again = again.expect("it runs");
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("1 passed"), "{said}");
    }
}

/// Protects: encoding stops before the next picture when it is told to, and says how far it is.
#[test]
fn encoding_stops_between_pictures() {
    let s = settings("ti_alone");
    let model = model(&s);
    let folder = ModelFolder::open(model.path()).expect("the golden folder opens");
    let mut told = Vec::new();
    let mut stop = |done: usize| {
        told.push(done);
        if done == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = Trainer::new(&folder, plan(&s), &examples(), F32, &mut stop);
    assert!(matches!(stopped, Err(calotype_train::Error::Interrupted)));
    assert_eq!(told, [0, 1]);
}

/// Protects: a validation stops before its next sample when it is told to, and the training goes on as if it had not been asked.
#[test]
fn validating_stops_between_samples() {
    let (mut plain, mut asked) = (trainer("ti_alone", F32), trainer("ti_alone", F32));
    let mut samples = 0;
    let stopped = asked.validation_loss_unless(&mut || {
        samples += 1;
        if samples == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped, samples), (None, 3));
    assert_eq!(plain.step().expect("a step"), asked.step().expect("a step"));
}

/// Protects: a training that begins from what another learnt has exactly its weights, of every kind; what does not fit is named, and
/// nothing is changed.
#[test]
fn a_training_from_another() {
    for case in ["lora_ti", "lora_all", "ti_alone", "full_adafactor"] {
        let (mut first, mut second) = (trainer(case, F32), trainer(case, F32));
        first.step().expect("a step");
        let weights = first.trained_weights();
        assert!(second.trained_weights() != weights, "{case}");
        second.begin_from(&weights).expect(case);
        assert!(second.trained_weights() == weights, "{case}");
        assert_eq!(first.values_crc32(), second.values_crc32(), "{case}");
    }
    let lora = trainer("lora_ti", F32).trained_weights();
    let mut other = trainer("ti_alone", F32);
    let before = other.values_crc32();
    let refused = other.begin_from(&lora).expect_err("refused").to_string();
    assert!(
        refused.starts_with("replicate_weights: expected embeddings of 2 tokens alone, found "),
        "{refused}"
    );
    let all = trainer("lora_all", F32).trained_weights();
    for (case, weights, says) in [
        ("lora_all", &lora, "expected attention, the layers of replicate_weights, found all"),
        ("lora_ti", &all, "expected all, the layers of replicate_weights, found attention"),
    ] {
        let mut other = trainer(case, F32);
        let before = other.values_crc32();
        let refused = other.begin_from(weights).expect_err("refused").to_string();
        assert_eq!(refused, format!("lora_layers: {says}"));
        assert_eq!(other.values_crc32(), before);
    }
    let mut lacking = lora.clone();
    lacking.lora.pop_first();
    let mut other = trainer("lora_ti", F32);
    let refused = other.begin_from(&lacking).expect_err("refused").to_string();
    assert!(refused.contains("found none for ") && other.values_crc32() != before, "{refused}");
}
