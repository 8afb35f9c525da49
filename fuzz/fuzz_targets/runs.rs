//! A run's folder in which one file is the input, as `calotype train --resume` reads it.
//!
//! The first byte of an input says which file it replaces, the rest is the file.

#![no_main]

use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_fuzz::{check_error, check_message, golden, new_folder};
use calotype_models::ModelFolder;
use calotype_sdxl::adapters::TrainedWeights;
use calotype_tensor::DType;
use calotype_train::dataset::Example;
use calotype_train::forecast::memory::Footprint;
use calotype_train::{Method, TrainPlan, Trainer, TrainerOptions, checkpoint};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, json};

/// What an input can replace.
const FILES: [&str; 5] = [
    "settings.json",
    "metrics.jsonl",
    "checkpoints/step-000001/state.json",
    "checkpoints/step-000001/state.safetensors",
    "checkpoints/step-000001/sums.json",
];
const CHECKPOINT: &str = "checkpoints/step-000001";
const OPTIONS: TrainerOptions = TrainerOptions { dtype: DType::F32, recompute: false };
const SIDE: usize = 64;

/// A training of one step, and the folder of its run.
struct Run {
    folder: PathBuf,
    model: ModelFolder,
    trainer: Trainer,
}

impl Run {
    fn new() -> Self {
        let folder = new_folder("run");
        let model = ModelFolder::open(&golden("pipeline")).unwrap();
        let plan = TrainPlan {
            resolution: SIDE,
            method: Method::Lora { rank: 2 },
            seed: 1,
            train_batch_size: 1,
            steps: 9,
            ..TrainPlan::default()
        };
        let example = Example {
            name: "a.png".into(),
            caption: "a photo of TOK".into(),
            rgb: vec![128; SIDE * SIDE * 3],
            mask: None,
            original_size: [SIDE; 2],
            crop_top_left: [0; 2],
        };
        let mut go_on = |_| ControlFlow::Continue(());
        let mut trainer = Trainer::new(&model, plan, &[example], OPTIONS, &mut go_on).unwrap();
        trainer.step().unwrap();
        checkpoint::save(&folder, &trainer, 1).unwrap();
        Self { folder, model, trainer }
    }

    /// Reads what the run of this file would need.
    fn read(&mut self, name: &str) {
        match name {
            "settings.json" => match calotype::run_plan(&self.folder) {
                Ok(plan) => {
                    let memory = Footprint::predict(&self.model, &plan, OPTIONS, 7).unwrap();
                    assert!(memory.peak() > 0.0 && memory.peak_with_samples() > 0.0);
                }
                Err(message) => check_message(&message),
            },
            "metrics.jsonl" => match calotype::run_losses(&self.folder, 1000) {
                Ok(losses) => drop(losses.chart((400, 240))),
                Err(message) => check_message(&message),
            },
            _ => self.restore(),
        }
    }

    /// Goes on from the checkpoint, and takes it for trained weights.
    fn restore(&mut self) {
        match checkpoint::restore(&self.folder, &mut self.trainer) {
            Ok(step) => assert!(step.is_none_or(|step| step == 1)),
            Err(error) => check_error(error),
        }
        if let Err(error) = TrainedWeights::read(&self.folder.join(CHECKPOINT), None) {
            check_error(error);
        }
    }
}

/// Writes the sums of a checkpoint whose other files are as they should be.
fn write_sums(folder: &Path) {
    let mut sums = Map::new();
    for name in ["state.json", "state.safetensors"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        sums.insert(name.into(), json!({ "bytes": bytes.len(), "crc32": crc.sum() }));
    }
    fs::write(folder.join("sums.json"), json!(sums).to_string()).unwrap();
}

thread_local! {
    static RUN: RefCell<Run> = RefCell::new(Run::new());
}

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else { return };
    let Some(&name) = FILES.get(which as usize) else { return };
    RUN.with_borrow_mut(|run| {
        let path = run.folder.join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, bytes).unwrap();
        let checkpoint = run.folder.join(CHECKPOINT);
        if name.contains("/state.") {
            write_sums(&checkpoint);
        }
        run.read(name);
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
            write_sums(&checkpoint);
        }
    });
});
