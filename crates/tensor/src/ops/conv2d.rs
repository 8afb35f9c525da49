//! Convolutions over NHWC images.

use crate::{Tensor, Weight};

/// Where an image is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Half the kernel's size on every side.
    Same,
    /// One row below and one column on the right: the VAE encoder's downsampling.
    BottomRight,
}

/// Stride and padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// 1 or 2, in both directions.
    pub stride: usize,
    /// Where zeros are added.
    pub padding: Padding,
}

/// x (B, H, W, I) → (B, Ho, Wo, O): convolution + bias (O) + shift (B, O) + residual (B, Ho, Wo, O).
pub fn conv2d(
    _x: &Tensor,
    _w: &Weight,
    _bias: Option<&Tensor>,
    _conv: Conv,
    _shift: Option<&Tensor>,
    _residual: Option<&Tensor>,
) -> Tensor {
    panic!("not yet")
}
