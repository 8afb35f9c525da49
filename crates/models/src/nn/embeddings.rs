//! The network that follows a sinusoidal embedding.

use calotype_tensor::Tensor;
use calotype_tensor::ops::Activation;

use super::{Linear, module};
use crate::weights::{Weights, WeightsError};

/// Two linear layers with SiLU between them.
#[derive(Clone)]
pub struct TimestepEmbedding {
    /// in → E.
    pub linear_1: Linear,
    /// E → E.
    pub linear_2: Linear,
}

impl TimestepEmbedding {
    /// Loads the network, from `input` to E = `output` channels.
    pub fn load(weights: &Weights, input: usize, output: usize) -> Result<Self, WeightsError> {
        Ok(Self {
            linear_1: Linear::load(weights, "linear_1", input, output)?,
            linear_2: Linear::load(weights, "linear_2", output, output)?,
        })
    }

    /// x (B, in) → (B, E), plus `residual` (B, E).
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Tensor {
        let h = self.linear_1.forward_fused(x, Activation::Silu, None);
        self.linear_2.forward_fused(&h, Activation::None, residual)
    }
}

module!(TimestepEmbedding { linear_1 => "linear_1", linear_2 => "linear_2" });
