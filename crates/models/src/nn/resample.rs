//! Halving and doubling an image.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, Conv, Padding};

use super::{Conv2d, module};
use crate::weights::{Weights, WeightsError};

/// Halves height and width with a convolution of stride 2.
#[derive(Clone)]
pub struct Downsample2D {
    /// C → C.
    pub conv: Conv2d,
}

impl Downsample2D {
    /// Loads the layer. [`Padding::Same`] rounds an odd size up (UNet), [`Padding::BottomRight`] rounds it down (VAE).
    pub fn load(weights: &Weights, channels: usize, padding: Padding) -> Result<Self, WeightsError> {
        let conv = Conv { stride: 2, padding };
        Ok(Self { conv: Conv2d::load_with(weights, "conv", channels, channels, 3, conv)? })
    }

    /// x (B, H, W, C) → (B, H/2, W/2, C), rounded as the padding says.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(x)
    }
}

/// Doubles height and width by repeating pixels, then convolves.
#[derive(Clone)]
pub struct Upsample2D {
    /// C → C.
    pub conv: Conv2d,
}

impl Upsample2D {
    /// Loads the layer for C = `channels`.
    pub fn load(weights: &Weights, channels: usize) -> Result<Self, WeightsError> {
        Ok(Self { conv: Conv2d::load(weights, "conv", channels, channels, 3)? })
    }

    /// x (B, H, W, C) → (B, 2H, 2W, C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(&ops::upsample_nearest2x(x))
    }

    /// x (B, H, W, C) → (B, height, width, C), where height is 2H or 2H − 1, and width is 2W or 2W − 1. This
    /// restores the size before a [`Downsample2D`] that rounded up. Nearest interpolation to an odd size is
    /// doubling without the last line.
    pub fn forward_to(&self, x: &Tensor, height: usize, width: usize) -> Tensor {
        let doubled = ops::upsample_nearest2x(x);
        if [height, width] == [doubled.dim(1), doubled.dim(2)] {
            return self.conv.forward(&doubled);
        }
        self.conv.forward(&ops::crop(&doubled, height, width))
    }
}

module!(Downsample2D { conv => "conv" });
module!(Upsample2D { conv => "conv" });
