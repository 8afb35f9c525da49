//! `calotype bench train`: times steps of training (LoRA, or the whole UNet) on given latents and texts, as `train_peer.py` does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use calotype_sdxl::adapters::{FullTensor, FullTensors, LoraLayers};
use calotype_sdxl::config::UNetConfig;
use calotype_sdxl::models::UNet;
use calotype_sdxl::nn::Trainable;
use calotype_sdxl::optim::{Adafactor, AdamW, Optimizer, State};
use calotype_sdxl::weights::{Layout, Training};
use calotype_tensor::{DType, LeafId, Tensor, ops};
use serde_json::{Value, json};

use super::bench::{Inputs, weights};
use crate::failure::Failure;

/// Any will do.
const LR: f64 = 1e-4;

/// What is timed.
pub struct Case {
    pub dtype: DType,
    pub runs: usize,
    pub rank: usize,
    pub recompute: bool,
    /// Whether the UNet itself trains, by Adafactor.
    pub full: bool,
}

/// Seconds of each step (the first is cold), and the losses.
pub fn run(model: &Path, inputs: &Path, case: &Case) -> Result<Value, Failure> {
    let start = Instant::now();
    let config = UNetConfig::read(model).map_err(calotype_sdxl::Error::from)?;
    let (lora, full) = (Arc::new(LoraLayers::new(case.rank)), Arc::new(FullTensors::default()));
    let training = Training {
        lora: (!case.full).then(|| lora.clone()),
        full: case.full.then(|| full.clone()),
        recompute: case.recompute,
    };
    let weights = weights(model, Layout::UNet, case.dtype)?.for_training(training);
    let unet = UNet::load(&weights, &config).map_err(calotype_sdxl::Error::from)?;
    lora.init(0);
    let load_seconds = start.elapsed().as_secs_f64();
    let inputs = Inputs::read(inputs)?;
    let batch = Batch {
        sample: inputs.tensor("sample")?.to_dtype(case.dtype),
        timestep: inputs.tensor("timestep")?.to_vec(),
        text: inputs.tensor("encoder_hidden_states")?.to_dtype(case.dtype),
        pooled: inputs.tensor("text_embeds")?,
        ids: inputs.tensor("time_ids")?,
        target: inputs.tensor("target")?,
    };
    let mut trained = Trained::all(&lora, &full);
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..case.runs {
        let start = Instant::now();
        losses.push(step(&unet, &batch, &mut trained, case.full));
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(json!({ "seconds": seconds, "losses": losses, "load_seconds": load_seconds }))
}

struct Batch {
    sample: Tensor,
    timestep: Vec<f32>,
    text: Tensor,
    pooled: Tensor,
    ids: Tensor,
    target: Tensor,
}

/// A parameter, with its shape and its optimizer's state.
struct Trained {
    parameter: Arc<dyn Trainable>,
    shape: Vec<usize>,
    state: State,
}

impl Trained {
    fn all(lora: &LoraLayers, full: &FullTensors) -> Vec<Trained> {
        let lora = lora.layers().into_values().flat_map(|lora| [lora.down, lora.up]).map(|p| {
            let shape = p.get().shape().to_vec();
            Trained { parameter: Arc::new(p), state: AdamW.state(&shape), shape }
        });
        let full = full.tensors().into_values().map(|FullTensor { shape, parameter }| {
            let state = Adafactor.state(&shape);
            Trained { parameter, shape, state }
        });
        lora.chain(full).collect()
    }

    fn update(&mut self, optimizer: &dyn Optimizer, gradient: &mut Tensor) {
        let gradient = gradient.f32s_mut();
        let factor = optimizer.step(&mut self.state, &self.shape, gradient, LR);
        self.parameter.step((1.0 - LR * optimizer.weight_decay()) as f32, factor, gradient);
    }
}

/// Forward, backward, and the optimizer's step: AdamW's once all gradients are there, Adafactor's with each of them. Gives the
/// loss.
fn step(unet: &UNet, batch: &Batch, trained: &mut [Trained], full: bool) -> f32 {
    let context = unet.prepare(&batch.text, &batch.pooled, &batch.ids);
    let prediction = unet.forward(&batch.sample, &batch.timestep, &context);
    let loss = ops::mse(&prediction, &batch.target, None);
    drop((context, prediction));
    let leaf = |(i, t): (usize, &Trained)| t.parameter.leaf_id().map(|leaf| (leaf, i));
    let of_leaf: HashMap<LeafId, usize> = trained.iter().enumerate().filter_map(leaf).collect();
    let mut gradients = Vec::new();
    let one = Tensor::full(&[], 1.0, DType::F32);
    loss.backward_with(one, &mut |leaf, mut gradient| match of_leaf.get(&leaf) {
        Some(&i) if full => trained[i].update(&Adafactor, &mut gradient),
        Some(&i) => gradients.push((i, gradient)),
        None => {}
    });
    for (i, mut gradient) in gradients {
        trained[i].update(&AdamW, &mut gradient);
    }
    loss.f32s()[0]
}
