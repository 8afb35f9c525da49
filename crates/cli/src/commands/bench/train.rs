//! `calotype bench train`: times training steps (of LoRA, or of the whole UNet) on given latents and texts, as `train_peer.py`
//! does.

use std::path::Path;
use std::time::Instant;

use calotype_models::UNet;
use calotype_models::config::UNetConfig;
use calotype_models::nn::Activations;
use calotype_models::weights::Network;
use calotype_tensor::{DType, Tensor};
use calotype_train::trainer::{Batch, Rates, UNetTrainer};
use calotype_train::{Method, TrainOptions, TrainPlan};
use serde_json::{Value, json};

use super::inputs::{Inputs, weights};
use crate::failure::Failure;

/// The learning rates; any will do.
const RATES: Rates = Rates { lr: 1e-4, ti_lr: None };

/// The case that is timed.
pub struct Case {
    pub dtype: DType,
    pub runs: usize,
    pub rank: usize,
    pub recompute: bool,
    /// Whether the UNet itself is trained, by Adafactor.
    pub full: bool,
}

/// Runs the steps. Returns the seconds of each step (the first is cold), and the losses.
pub fn run(model: &Path, inputs: &Path, case: &Case) -> Result<Value, Failure> {
    let start = Instant::now();
    let config = UNetConfig::read(model).map_err(calotype_sdxl::Error::from)?;
    let weights = weights(model, Network::UNet, case.dtype)?.always_packed();
    let unet = UNet::load(&weights, &config).map_err(calotype_sdxl::Error::from)?;
    let activations = if case.recompute { Activations::Recompute } else { Activations::Keep };
    let mut trainer = UNetTrainer::new(unet, &plan(case), &[], activations)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let inputs = Inputs::read(inputs)?;
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..case.runs {
        let batch = batch(&inputs, case.dtype)?;
        let start = Instant::now();
        let mut batch = Some(batch);
        let step = trainer.step_on(RATES, &mut |_| batch.take().expect("a step has one batch"));
        seconds.push(start.elapsed().as_secs_f64());
        let (loss, _) = step.ok_or_else(|| Failure::Failed("the loss is not a number".into()))?;
        losses.push(loss);
    }
    Ok(json!({ "seconds": seconds, "losses": losses, "load_seconds": load_seconds }))
}

/// The plan of the training. The other programs do not clip gradients.
fn plan(case: &Case) -> TrainPlan {
    let options = TrainOptions { max_grad_norm: Some(0.0), ..TrainOptions::default() };
    let method = if case.full { Method::Full } else { Method::Lora { rank: case.rank } };
    TrainPlan { seed: 0, method, options, ..TrainPlan::default() }
}

fn batch(inputs: &Inputs, dtype: DType) -> Result<Batch, Failure> {
    let tensor = |name: &str| -> Result<Tensor, Failure> { inputs.tensor(name) };
    Ok(Batch {
        sample: tensor("sample")?.to_dtype(dtype),
        timesteps: tensor("timestep")?.to_vec(),
        hidden: tensor("encoder_hidden_states")?.to_dtype(dtype),
        pooled: tensor("text_embeds")?,
        time_ids: tensor("time_ids")?,
        target: tensor("target")?,
        weights: None,
    })
}
