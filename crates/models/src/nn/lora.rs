//! Low-rank adaptation of a linear layer or a convolution. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

use calotype_tensor::ops::{self, Conv, ConvArgs, LinearArgs, Padding};
use calotype_tensor::{DType, Device, Tensor, Weight};

use super::Parameter;

/// `up(down(x))`, which is added to the output of a layer.
#[derive(Clone)]
pub struct Lora {
    /// (rank, in), or for a convolution (rank, in, k, k); f32.
    pub down: Parameter,
    /// (out, rank), or for a convolution (out, rank, 1, 1); f32.
    pub up: Parameter,
}

impl Lora {
    /// Zeros of rank `rank` (at least 1) on a device, for a layer whose weight has this shape in a checkpoint: (out, in), or
    /// (out, in, k, k).
    ///
    /// # Panics
    /// If the shape has fewer than two dimensions.
    pub fn zeros(rank: usize, weight: &[usize], device: Device) -> Self {
        let [down, up] = Self::shapes(rank, weight);
        let zeros = |shape: &[usize]| Parameter::<Tensor>::new(device.zeros(shape, DType::F32));
        Self { down: zeros(&down), up: zeros(&up) }
    }

    /// The shapes of `down` and `up`, for [`Self::zeros`].
    ///
    /// # Panics
    /// If the shape has fewer than two dimensions.
    pub fn shapes(rank: usize, weight: &[usize]) -> [Vec<usize>; 2] {
        let ones = vec![1; weight.len() - 2];
        [[&[rank], &weight[1..]].concat(), [&[weight[0], rank], &*ones].concat()]
    }

    fn weights(&self) -> [Weight; 2] {
        [&self.down, &self.up].map(|matrix| Weight::from_tensor(&matrix.get()))
    }

    /// A linear layer's: x (.., in), base (.., out) → base + up(down(x)).
    pub fn add_to(&self, base: &Tensor, x: &Tensor) -> Tensor {
        let [down, up] = self.weights();
        let h = ops::linear(x, &down, LinearArgs::default()); // (.., rank)
        ops::linear(&h, &up, LinearArgs { residual: Some(base), ..LinearArgs::default() })
    }

    /// A convolution's, with the stride and padding `conv`: x (B, H, W, in), base (B, Ho, Wo, out) → base + up(down(x)).
    pub fn add_to_conv(&self, base: &Tensor, x: &Tensor, conv: Conv) -> Tensor {
        let [down, up] = self.weights();
        let h = ops::conv2d(x, &down, conv, ConvArgs::default()); // (B, Ho, Wo, rank)
        let pointwise = Conv { stride: 1, padding: Padding::Same };
        ops::conv2d(&h, &up, pointwise, ConvArgs { residual: Some(base), ..ConvArgs::default() })
    }
}
