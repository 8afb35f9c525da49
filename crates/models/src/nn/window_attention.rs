//! Attention in windows with a bias for each head, as Swin2SR and SwinIR have it.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, WindowArgs};

use super::Linear;

/// Attention of each pixel to those of its window.
#[derive(Clone)]
pub struct WindowAttention {
    /// C → C.
    pub query: Linear,
    /// C → C.
    pub key: Linear,
    /// C → C.
    pub value: Linear,
    /// C → C.
    pub output: Linear,
    /// Whether products are cosines.
    pub cosine: bool,
    /// (heads): the factor of products.
    pub scale: Tensor,
    /// (heads, window², window²): added to scores.
    pub bias: Tensor,
}

/// Where windows lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Pixels of a window's side.
    pub size: usize,
    /// Pixels by which they are shifted.
    pub shift: usize,
    /// Added to the score of pixels between which an edge of the image lies.
    pub apart: f32,
}

impl WindowAttention {
    /// x (B, H, W, C) → (B, H, W, C), + residual. H and W are multiples of the window.
    pub fn forward(&self, x: &Tensor, windows: Windows, residual: Option<&Tensor>) -> Tensor {
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|linear| linear.forward(x));
        let args = WindowArgs {
            heads: self.bias.dim(0),
            window: windows.size,
            shift: windows.shift,
            cosine: self.cosine,
            scale: &self.scale,
            bias: &self.bias,
            apart: windows.apart,
        };
        let y = ops::window_attention(&q, &k, &v, args);
        self.output.forward_fused(&y, ops::Activation::None, residual)
    }
}

/// A table ((2 w − 1)², heads) of a bias for each offset, query − key, by rows, then by columns → (heads, w², w²): for each query and
/// each key.
pub(crate) fn bias_of_offsets(table: &[f32], heads: usize, window: usize) -> Tensor {
    let (area, across) = (window * window, 2 * window - 1);
    let of = |head: usize, query: usize, key: usize| {
        let row = query / window + window - 1 - key / window;
        let column = query % window + window - 1 - key % window;
        table[(row * across + column) * heads + head]
    };
    let pairs = (0..heads * area * area).map(|i| of(i / (area * area), i / area % area, i % area));
    Tensor::from_vec(pairs.collect(), &[heads, area, area])
}
