//! A full fine-tune: the UNet's own tensors train, in f32, where the layers have them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use calotype_tensor::{Tensor, Weight};

use crate::nn::{Parameter, Trainable};

/// The tensors of one training, by their keys. Filled while the UNet is loaded.
#[derive(Default)]
pub struct FullTensors(Mutex<BTreeMap<String, FullTensor>>);

/// A tensor that trains.
#[derive(Clone)]
pub struct FullTensor {
    /// Its shape in a checkpoint.
    pub shape: Vec<usize>,
    /// Its values.
    pub parameter: Arc<dyn Trainable>,
}

impl FullTensors {
    /// Whether the tensor of this key trains: all do but the norms' scales and the embedding of time.
    pub fn takes(key: &str) -> bool {
        let scales = key.strip_suffix(".weight").is_some_and(|layer| layer.contains(".norm"));
        !scales && !key.contains("time")
    }

    /// A tensor, to be trained if it is one that trains.
    pub(crate) fn tensor(&self, key: String, value: Tensor) -> Parameter {
        if !Self::takes(&key) {
            return Parameter::fixed(value);
        }
        let shape = value.shape().to_vec();
        let parameter = Parameter::<Tensor>::new(value);
        self.add(key, shape, parameter.clone());
        parameter
    }

    /// A layer's weight of this shape in a checkpoint, to be trained.
    pub(crate) fn weight(&self, key: String, shape: &[usize], value: Weight) -> Parameter<Weight> {
        let parameter = Parameter::<Weight>::new(value);
        self.add(key, shape.to_vec(), parameter.clone());
        parameter
    }

    /// All of them, in the order of their keys.
    pub fn tensors(&self) -> BTreeMap<String, FullTensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, key: String, shape: Vec<usize>, parameter: impl Trainable + 'static) {
        let tensor = FullTensor { shape, parameter: Arc::new(parameter) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, tensor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the list of what trains: that of the original's two patterns, `*.norm*.weight` and `*time*`.
    #[test]
    fn norms_scales_and_time_stay() {
        for (key, trains) in [
            ("conv_in.weight", true),
            ("conv_norm_out.weight", true),
            ("add_embedding.linear_1.weight", true),
            ("down_blocks.1.attentions.0.norm.bias", true),
            ("down_blocks.1.attentions.0.norm.weight", false),
            ("mid_block.attentions.0.transformer_blocks.0.norm3.weight", false),
            ("down_blocks.0.resnets.0.time_emb_proj.bias", false),
            ("time_embedding.linear_1.weight", false),
        ] {
            assert_eq!(FullTensors::takes(key), trains, "{key}");
        }
    }
}
