//! Full fine-tuning: the UNet's own tensors are trained, in f32 and in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use calotype_models::UNet;
use calotype_models::nn::{AnyParameter, Module, Trainable};

/// A tensor that is trained.
pub(crate) struct FullTensor {
    /// The shape that the tensor has in a checkpoint.
    pub(crate) shape: Vec<usize>,
    /// The parameter that holds the tensor's values.
    pub(crate) parameter: Arc<dyn Trainable>,
}

/// Whether the tensor with this key is trained. All are, except the scales of norms and the time embeddings.
pub(crate) fn trains(key: &str) -> bool {
    let scales = key.strip_suffix(".weight").is_some_and(|layer| layer.contains(".norm"));
    !scales && !key.contains("time")
}

/// Puts every tensor for which [trains] is true on the tape, in f32. Returns the tensors by key.
pub(crate) fn record(unet: &mut UNet) -> BTreeMap<String, FullTensor> {
    let mut tensors = BTreeMap::new();
    unet.visit_parameters("", &mut |key, shape, parameter| {
        if trains(key) {
            let parameter: Arc<dyn Trainable> = match parameter {
                AnyParameter::Tensor(parameter) => Arc::new(parameter.clone()),
                AnyParameter::Weight(parameter) => Arc::new(parameter.clone()),
            };
            parameter.record(true);
            tensors.insert(key.to_owned(), FullTensor { shape: shape.to_vec(), parameter });
        }
    });
    tensors
}

#[cfg(test)]
mod tests {
    /// Protects the list of trained tensors. The original leaves out two patterns, `*.norm*.weight` and `*time*`.
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
            assert_eq!(super::trains(key), trains, "{key}");
        }
    }
}
