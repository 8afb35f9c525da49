//! A convolution.

use calotype_tensor::ops::{self, Conv, ConvArgs, Padding};
use calotype_tensor::{Tensor, Weight};

use super::Parameter;
use crate::weights::{Weights, WeightsError};

/// A 3×3 or 1×1 convolution with bias.
#[derive(Clone)]
pub struct Conv2d {
    /// (O, I, k, k), packed.
    pub weight: Parameter<Weight>,
    /// (O).
    pub bias: Parameter,
    /// Stride and padding.
    pub conv: Conv,
}

impl Conv2d {
    /// Loads `name.weight` and `name.bias` of a `kernel` × `kernel` convolution that keeps the image's size.
    pub fn load(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
        kernel: usize,
    ) -> Result<Self, WeightsError> {
        Self::load_with(weights, name, input, output, kernel, Conv { stride: 1, padding: Padding::Same })
    }

    /// Loads a convolution with any stride and padding.
    pub fn load_with(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
        kernel: usize,
        conv: Conv,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.conv(name, output, input, kernel)?;
        Ok(Self { weight, bias, conv })
    }

    /// x (B, H, W, I) → (B, Ho, Wo, O).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_fused(x, None, None)
    }

    /// conv(x) + shift (B, O) + residual (B, Ho, Wo, O), fused.
    pub fn forward_fused(&self, x: &Tensor, shift: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        let bias = self.bias.get();
        ops::conv2d(x, &self.weight.get(), self.conv, ConvArgs { bias: Some(&bias), shift, residual })
    }
}
