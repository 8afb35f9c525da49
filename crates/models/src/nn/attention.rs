//! Multi-head attention with its projections, named as in diffusers' `Attention`.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, Activation, Mask};

use super::{Linear, module};
use crate::weights::{Weights, WeightsError};

/// Keys and values that queries attend to.
#[derive(Clone)]
pub struct KeyValue {
    /// (B, S, heads · d).
    pub k: Tensor,
    /// (B, S, heads · d).
    pub v: Tensor,
}

/// The attention kernels take heads whose size is a multiple of this.
const HEAD_MULTIPLE: usize = 8;

/// Multi-head attention ([`ops::attention`]) with heads of any size: heads whose size is no multiple of 8 are continued with zeros.
/// q (B, T, C), k and v (B, S, C) → (B, T, C); `heads` divides C.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Tensor {
    let size = q.last_dim() / heads;
    let more = size.next_multiple_of(HEAD_MULTIPLE) - size;
    if more == 0 {
        return ops::attention(q, k, v, heads, mask);
    }
    let widened = |x: &Tensor| {
        let (batch, tokens, rows) = (x.dim(0), x.dim(1), x.dim(0) * x.dim(1) * heads);
        let zeros = x.device().zeros(&[rows, more], x.dtype());
        let wide = ops::concat(&[&x.reshape(&[rows, size]), &zeros]);
        wide.reshape(&[batch, tokens, heads * (size + more)])
    };
    // Scores are divided by the root of the widened size, where the root of the heads' own is meant.
    let q_scaled = ops::scale(&widened(q), ((size + more) as f32 / size as f32).sqrt());
    let y = ops::attention(&q_scaled, &widened(k), &widened(v), heads, mask);
    let rows = y.reshape(&[q.dim(0) * q.dim(1) * heads, size + more]);
    ops::slice_last(&rows, 0, size).reshape(q.shape())
}

/// Attention with projections of queries, keys, values and output.
#[derive(Clone)]
pub struct Attention {
    /// (C, C), no bias.
    pub to_q: Linear,
    /// (C, context channels), no bias.
    pub to_k: Linear,
    /// (C, context channels), no bias.
    pub to_v: Linear,
    /// (C, C); `to_out.0` in the checkpoint (`to_out.1` is a dropout).
    pub to_out: Linear,
    /// Heads that the C channels are split into.
    pub heads: usize,
}

impl Attention {
    /// Loads a UNet's attention of `channels`: self-attention, or cross-attention to a text of `context` channels.
    pub fn load(
        weights: &Weights,
        channels: usize,
        context: Option<usize>,
        heads: usize,
    ) -> Result<Self, WeightsError> {
        // The keys and values of a text are computed once for all steps, and have few rows.
        let source = if context.is_some() { weights.clone().used_once() } else { weights.clone() };
        let context = context.unwrap_or(channels);
        Ok(Self {
            to_q: Linear::load_unbiased(weights, "to_q", channels, channels)?,
            to_k: Linear::load_unbiased(&source, "to_k", context, channels)?,
            to_v: Linear::load_unbiased(&source, "to_v", context, channels)?,
            to_out: Linear::load(weights, "to_out.0", channels, channels)?,
            heads,
        })
    }

    /// Loads a VAE's attention: one head over all channels, and a bias in every projection.
    pub fn load_single_head(weights: &Weights, channels: usize) -> Result<Self, WeightsError> {
        let load = |name: &str| Linear::load(weights, name, channels, channels);
        Ok(Self {
            to_q: load("to_q")?,
            to_k: load("to_k")?,
            to_v: load("to_v")?,
            to_out: load("to_out.0")?,
            heads: 1,
        })
    }

    /// The keys and values of a context (B, S, context channels).
    pub fn key_value(&self, context: &Tensor) -> KeyValue {
        KeyValue { k: self.to_k.forward(context), v: self.to_v.forward(context) }
    }

    /// x (B, T, C) attends to `to`; the result is added to `residual` (B, T, C).
    pub fn forward(&self, x: &Tensor, to: &KeyValue, residual: &Tensor) -> Tensor {
        let q = self.to_q.forward(x);
        let y = ops::attention(&q, &to.k, &to.v, self.heads, Mask::None);
        self.to_out.forward_fused(&y, Activation::None, Some(residual))
    }

    /// x (B, T, C) attends to itself; the result is added to `residual` (B, T, C).
    pub fn forward_self(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.forward(x, &self.key_value(x), residual)
    }
}

module!(Attention { to_q => "to_q", to_k => "to_k", to_v => "to_v", to_out => "to_out.0" });
