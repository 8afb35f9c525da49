//! Normalisation layers. Their parameters stay f32.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, GroupNormArgs};

use super::Parameter;
use crate::weights::{Weights, WeightsError};

/// Normalises groups of channels over the whole image.
#[derive(Clone)]
pub struct GroupNorm {
    /// (C).
    pub weight: Parameter,
    /// (C).
    pub bias: Parameter,
    /// Number of groups; divides C.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl GroupNorm {
    /// Loads `name.weight` (C) and `name.bias` (C).
    pub fn load(
        weights: &Weights,
        name: &str,
        groups: usize,
        channels: usize,
        eps: f32,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.norm(name, channels)?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// x (B, .., C) → (B, .., C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let norm = GroupNormArgs { groups: self.groups, eps: self.eps, silu: false };
        ops::group_norm(x, &self.weight.get(), &self.bias.get(), norm)
    }

    /// Normalises x and applies SiLU. x (B, .., C) → (B, .., C).
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        let norm = GroupNormArgs { groups: self.groups, eps: self.eps, silu: true };
        ops::group_norm(x, &self.weight.get(), &self.bias.get(), norm)
    }
}

/// Normalises the channels of each position.
#[derive(Clone)]
pub struct LayerNorm {
    /// (C).
    pub weight: Parameter,
    /// (C).
    pub bias: Parameter,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Loads `name.weight` (C) and `name.bias` (C).
    pub fn load(weights: &Weights, name: &str, channels: usize, eps: f32) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.norm(name, channels)?;
        Ok(Self { weight, bias, eps })
    }

    /// x (.., C) → (.., C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::layer_norm(x, &self.weight.get(), &self.bias.get(), self.eps)
    }
}
