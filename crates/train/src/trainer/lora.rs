//! LoRA training: low-rank matrices beside layers of the UNet.

use std::collections::BTreeMap;

use super::stream::{Purpose, stream};
use crate::plan::LoraLayers;
use calotype_models::UNet;
use calotype_models::nn::{Lora, Module, Trainable};

/// The projections of an attention.
const PROJECTIONS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// Whether the linear layer or convolution at this path gets low-rank matrices.
pub(crate) fn trains(path: &str, layers: LoraLayers) -> bool {
    let is_of = |attention: &str| {
        PROJECTIONS.iter().any(|projection| path.ends_with(&format!(".{attention}.{projection}")))
    };
    layers == LoraLayers::All || is_of("attn1") || is_of("attn2")
}

/// Adds matrices of rank `rank`, all 0, to the layers for which [trains] is true. Returns the matrices by layer path.
pub(crate) fn attach(unet: &mut UNet, rank: usize, layers: LoraLayers) -> BTreeMap<String, Lora> {
    let mut attached = BTreeMap::new();
    let device = unet.conv_in.weight.get().device();
    unet.visit("", &mut |path, mut layer| {
        if let Some((place, weight)) = layer.lora().filter(|_| trains(path, layers)) {
            let lora = Lora::zeros(rank, &weight, device);
            *place = Some(lora.clone());
            attached.insert(path.to_owned(), lora);
        }
    });
    attached
}

/// [attach], with values to begin with: `down` is normal with a deviation of 1 / rank and `up` is 0, as in diffusers'
/// `LoRALinearLayer` and `LoRAConv2dLayer`.
pub(crate) fn inject(unet: &mut UNet, rank: usize, layers: LoraLayers, seed: u64) -> BTreeMap<String, Lora> {
    let attached = attach(unet, rank, layers);
    for (i, lora) in attached.values().enumerate() {
        let values = stream(seed, Purpose::Init, 2 + i as u64).randn(lora.down.get().numel());
        let values: Vec<f32> = values.into_iter().map(|x| x / rank as f32).collect();
        lora.down.set_values(&values);
    }
    attached
}
