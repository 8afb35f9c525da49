//! LoRA: ΔW = (alpha / rank) · up · down.

use calotype_tensor::Tensor;

use super::matrix::product;

/// The LoRA of one layer: W' = W + (alpha / rank) · up · down.
#[derive(Clone, Debug)]
pub struct LoraPair {
    /// (rank, in), or for a convolution (rank, in, k, k); f32.
    pub down: Tensor,
    /// (out, rank), or for a convolution (out, rank, 1, 1); f32.
    pub up: Tensor,
    /// The scale times the rank.
    pub alpha: f32,
}

impl LoraPair {
    /// A pair of scale 1: alpha equals the rank.
    pub fn new(down: Tensor, up: Tensor) -> Self {
        let alpha = down.dim(0) as f32;
        Self { down, up, alpha }
    }

    /// The inner dimension of the product.
    pub fn rank(&self) -> usize {
        self.down.dim(0)
    }

    /// The scale, alpha / rank.
    pub fn scale(&self) -> f64 {
        f64::from(self.alpha) / self.rank() as f64
    }

    /// up (out, rank) · down (rank, n) → (out, n). For a convolution, n is in · k · k.
    pub(in super::super) fn product(&self) -> Vec<f32> {
        product(&self.up, &self.down)
    }
}

impl PartialEq for LoraPair {
    fn eq(&self, other: &Self) -> bool {
        let same = super::super::same;
        same(&self.down, &other.down) && same(&self.up, &other.up) && self.alpha == other.alpha
    }
}
