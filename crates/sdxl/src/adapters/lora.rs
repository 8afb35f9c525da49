//! LoRA in training: low-rank matrices beside every projection of the UNet's attentions.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use calotype_tensor::{DType, Tensor};

use crate::nn::{Lora, Parameter, Trainable};
use crate::train::{Purpose, stream};

/// The projections of an attention that train.
const PROJECTIONS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// The matrices of one training, by their layer's path. Filled while the UNet is loaded.
pub struct LoraLayers {
    rank: usize,
    layers: Mutex<BTreeMap<String, Lora>>,
}

impl LoraLayers {
    /// Matrices of a rank of at least 1, for no layer yet.
    pub fn new(rank: usize) -> Self {
        Self { rank, layers: Mutex::default() }
    }

    /// Whether matrices train beside the layer at this path: beside an attention's projections.
    pub fn takes(path: &str) -> bool {
        let trained = |projection: &str| {
            ["attn1", "attn2"].iter().any(|attention| path.ends_with(&format!(".{attention}.{projection}")))
        };
        PROJECTIONS.into_iter().any(trained)
    }

    /// Zero matrices for the linear layer (out, inp) at `path`, if it is one of an attention's projections.
    pub(crate) fn beside(&self, path: String, out: usize, inp: usize) -> Option<Lora> {
        if !Self::takes(&path) {
            return None;
        }
        let zeros = |rows, columns| Parameter::<Tensor>::new(Tensor::zeros(&[rows, columns], DType::F32));
        let lora = Lora { down: zeros(self.rank, inp), up: zeros(out, self.rank) };
        self.lock().insert(path, lora.clone());
        Some(lora)
    }

    /// Gives the matrices their first values: down is normal with a deviation of 1 / rank, up is 0, as diffusers'
    /// `LoRALinearLayer` has them.
    pub fn init(&self, seed: u64) {
        for (i, lora) in self.lock().values().enumerate() {
            let shape = lora.down.get().shape().to_vec();
            let values = stream(seed, Purpose::Init, 2 + i as u64).randn(shape.iter().product());
            let values: Vec<f32> = values.into_iter().map(|x| x / self.rank as f32).collect();
            lora.down.set_values(&values);
        }
    }

    /// All of them, in the order of their layers' paths.
    pub fn layers(&self) -> BTreeMap<String, Lora> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Lora>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
