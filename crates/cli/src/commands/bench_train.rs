//! `calotype bench train`: times steps of LoRA training on given latents and texts, as `train_peer.py` does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use calotype_sdxl::adapters::LoraLayers;
use calotype_sdxl::config::UNetConfig;
use calotype_sdxl::models::UNet;
use calotype_sdxl::nn::Parameter;
use calotype_sdxl::optim::{AdamW, Optimizer, State};
use calotype_sdxl::weights::{Layout, Training};
use calotype_tensor::{DType, LeafId, Tensor, ops};
use serde_json::{Value, json};

use super::bench::{Inputs, weights};
use crate::failure::Failure;

/// Learning rate and weight decay: any will do.
const LR: f64 = 1e-4;
const DECAY: f64 = 1e-4;

/// What is timed.
pub struct Case {
    pub dtype: DType,
    pub runs: usize,
    pub rank: usize,
    pub recompute: bool,
}

/// Seconds of each step (the first is cold), and the losses.
pub fn run(model: &Path, inputs: &Path, case: &Case) -> Result<Value, Failure> {
    let start = Instant::now();
    let config = UNetConfig::read(model).map_err(calotype_sdxl::Error::from)?;
    let lora = Arc::new(LoraLayers::new(case.rank));
    let training = Training { lora: Some(lora.clone()), recompute: case.recompute };
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
    let layers = lora.layers().into_values();
    let mut trained: Vec<(Parameter, State)> = layers
        .flat_map(|lora| [lora.down, lora.up])
        .map(|p| (p.clone(), AdamW.state(p.get().shape())))
        .collect();
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..case.runs {
        let start = Instant::now();
        losses.push(step(&unet, &batch, &mut trained));
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

/// Forward, backward, AdamW; gives the loss.
fn step(unet: &UNet, batch: &Batch, trained: &mut [(Parameter, State)]) -> f32 {
    let context = unet.prepare(&batch.text, &batch.pooled, &batch.ids);
    let prediction = unet.forward(&batch.sample, &batch.timestep, &context);
    let loss = ops::mse(&prediction, &batch.target, None);
    drop((context, prediction));
    let mut gradients: HashMap<LeafId, Tensor> = HashMap::new();
    loss.backward_with(Tensor::full(&[], 1.0, DType::F32), &mut |leaf, g| drop(gradients.insert(leaf, g)));
    for (parameter, state) in trained {
        let value = parameter.get();
        let Some(gradient) = value.leaf_id().and_then(|leaf| gradients.remove(&leaf)) else { continue };
        let mut step = gradient.to_vec();
        AdamW.step(state, value.shape(), &mut step, LR);
        parameter.step((1.0 - LR * DECAY) as f32, &step);
    }
    loss.f32s()[0]
}
