//! Layer normalisation.

use super::like;
use crate::Tensor;
use crate::cpu::layer_norm;
use crate::tape::record;

/// Normalises the last dimension to mean 0 and variance 1, then scales and shifts each feature.
///
/// x (.., C) → (.., C). `weight` and `bias` are (C), f32 or bf16 whatever x is. `eps` is added to the variance
/// (biased, as in PyTorch). Statistics are f32.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    let scale = weight.to_vec();
    let (y, moments) = layer_norm::forward(x, &scale, &bias.to_vec(), eps);
    let input = x.detach();
    let (weight_like, bias_like) = (like(weight), like(bias));
    record(y, &[Some(x), Some(weight), Some(bias)], move |dy| {
        let (dx, dweight, dbias) = layer_norm::backward(&input, dy, &scale, &moments);
        vec![Some(dx), Some(weight_like(dweight)), Some(bias_like(dbias))]
    })
}
