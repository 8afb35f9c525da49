//! A linear layer.

use calotype_tensor::ops::{self, Activation};
use calotype_tensor::{Tensor, Weight};

use super::{Lora, Parameter};
use crate::weights::{Weights, WeightsError};

/// x Wᵀ + b.
#[derive(Clone)]
pub struct Linear {
    /// (out, in), packed.
    pub weight: Parameter<Weight>,
    /// (out).
    pub bias: Option<Parameter>,
    /// What is trained beside it.
    pub lora: Option<Lora>,
}

impl Linear {
    /// Loads `name.weight` (out, in) and `name.bias` (out).
    pub fn load(weights: &Weights, name: &str, input: usize, output: usize) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.linear(name, output, input, true)?;
        Ok(Self { weight, bias, lora: weights.lora(name, output, input) })
    }

    /// Loads a layer that has no bias.
    pub fn load_unbiased(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.linear(name, output, input, false)?;
        Ok(Self { weight, bias, lora: weights.lora(name, output, input) })
    }

    /// Loads a layer that the checkpoint has as a 1×1 convolution: over channels-last pixels the same.
    pub fn load_conv1x1(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.conv(name, output, input, 1)?;
        Ok(Self { weight, bias: Some(bias), lora: None })
    }

    /// x (.., in) → (.., out).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_fused(x, Activation::None, None)
    }

    /// act(x Wᵀ + b) + residual, in one go. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`].
    pub fn forward_fused(&self, x: &Tensor, act: Activation, residual: Option<&Tensor>) -> Tensor {
        let bias = self.bias.as_ref().map(Parameter::get);
        let y = ops::linear(x, &self.weight.get(), bias.as_ref(), act, residual);
        match &self.lora {
            // After an activation it would have to come between: such layers have none.
            Some(lora) if act == Activation::None => lora.add_to(&y, x),
            _ => y,
        }
    }
}
