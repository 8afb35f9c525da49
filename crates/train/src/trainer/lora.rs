//! LoRA training: low-rank matrices beside every projection of the UNet's attentions.

use std::collections::BTreeMap;

use super::stream::{Purpose, stream};
use calotype_models::UNet;
use calotype_models::nn::{Layer, Lora, Module, Trainable};

/// The projections of an attention that are trained.
const PROJECTIONS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// Whether the layer at this path gets LoRA matrices. The projections of attentions do.
pub(crate) fn trains(path: &str) -> bool {
    let is_of = |attention: &str| {
        PROJECTIONS.iter().any(|projection| path.ends_with(&format!(".{attention}.{projection}")))
    };
    is_of("attn1") || is_of("attn2")
}

/// Adds matrices of rank `rank` to the layers for which [trains] is true. Returns the matrices by layer path. `down` is normal
/// with a deviation of 1 / rank and `up` is 0, as in diffusers' `LoRALinearLayer`.
pub(crate) fn inject(unet: &mut UNet, rank: usize, seed: u64) -> BTreeMap<String, Lora> {
    let mut layers = BTreeMap::new();
    unet.visit("", &mut |path, layer| match layer {
        Layer::Linear(linear) if trains(path) => {
            let weight = linear.weight.get();
            let lora = Lora::zeros(rank, weight.inp(), weight.out(), weight.device());
            linear.lora = Some(lora.clone());
            layers.insert(path.to_owned(), lora);
        }
        _ => {}
    });
    for (i, lora) in layers.values().enumerate() {
        let count = rank * lora.down.get().dim(1);
        let values = stream(seed, Purpose::Init, 2 + i as u64).randn(count);
        let values: Vec<f32> = values.into_iter().map(|x| x / rank as f32).collect();
        lora.down.set_values(&values);
    }
    layers
}
