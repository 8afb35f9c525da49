//! Layer normalisation.

use super::{check, like};
use crate::Tensor;
use crate::cpu::layer_norm;
use crate::tape::record;

/// Normalises the last dimension to mean 0 and variance 1, then scales and shifts each feature.
///
/// x (.., C) → (.., C). `weight` and `bias` are (C), f32 or bf16 whatever x is. `eps` is added to the variance
/// (biased, as in PyTorch). Statistics are f32.
///
/// # Panics
/// If a shape is another.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    check::has_rows("layer_norm", x);
    check::shape("layer_norm", "weight", weight, &[x.last_dim()]);
    check::shape("layer_norm", "bias", bias, &[x.last_dim()]);
    let (weight_like, bias_like) = (like(weight), like(bias));
    if x.numel() == 0 {
        let (dx, width) = (x.detach(), x.last_dim());
        return record(x.detach(), &[Some(x), Some(weight), Some(bias)], move |_| {
            vec![Some(dx), Some(weight_like(vec![0.0; width])), Some(bias_like(vec![0.0; width]))]
        });
    }
    let scale = weight.to_vec();
    let (y, moments) = layer_norm::forward(x, &scale, &bias.to_vec(), eps);
    let input = x.detach();
    record(y, &[Some(x), Some(weight), Some(bias)], move |dy| {
        let (dx, dweight, dbias) = layer_norm::backward(&input, dy, &scale, &moments);
        vec![Some(dx), Some(weight_like(dweight)), Some(bias_like(dbias))]
    })
}
