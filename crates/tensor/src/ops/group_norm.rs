//! Group normalisation.

use super::like;
use crate::Tensor;
use crate::cpu::group_norm::GroupNorm;
use crate::tape::{needs, record};

/// Normalises each group of channels of each image to mean 0 and variance 1, then scales and shifts each
/// channel; with `silu`, SiLU follows.
///
/// x (B, .., C) → (B, .., C), channels last. `weight` and `bias` are (C), f32 or bf16 whatever x is. `groups`
/// divides C. `eps` is added to the variance (biased, as in PyTorch). Statistics are f32.
pub fn group_norm(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32, silu: bool) -> Tensor {
    let norm = GroupNorm::new(x, groups, weight.to_vec(), bias.to_vec(), eps, silu);
    let y = norm.forward(x);
    let (input, with_dx) = (x.detach(), needs(Some(x)));
    let (weight_like, bias_like) = (like(weight), like(bias));
    record(y, &[Some(x), Some(weight), Some(bias)], move |dy| {
        let grads = norm.backward(&input, dy, with_dx);
        vec![grads.dx, Some(weight_like(grads.dweight)), Some(bias_like(grads.dbias))]
    })
}
