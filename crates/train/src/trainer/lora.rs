//! LoRA in training: low-rank matrices beside every projection of the UNet's attentions.

use std::collections::BTreeMap;

use super::stream::{Purpose, stream};
use calotype_models::UNet;
use calotype_models::nn::{Layer, Lora, Module, Trainable};

/// The projections of an attention that train.
const PROJECTIONS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// Whether matrices train beside the layer at this path: beside an attention's projections.
pub(crate) fn trains(path: &str) -> bool {
    let is_of = |attention: &str| {
        PROJECTIONS.iter().any(|projection| path.ends_with(&format!(".{attention}.{projection}")))
    };
    is_of("attn1") || is_of("attn2")
}

/// Puts matrices of rank `rank` beside the layers that [train](trains), and gives them by their layers' paths: `down` is normal with a
/// deviation of 1 / rank, `up` is 0, as diffusers' `LoRALinearLayer` has them.
pub(crate) fn inject(unet: &mut UNet, rank: usize, seed: u64) -> BTreeMap<String, Lora> {
    let mut layers = BTreeMap::new();
    unet.visit("", &mut |path, layer| match layer {
        Layer::Linear(linear) if trains(path) => {
            let lora = Lora::zeros(rank, linear.weight.get().inp(), linear.weight.get().out());
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
