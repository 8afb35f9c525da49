//! Linear layers.

use crate::{Tensor, Weight};

/// What is done to a linear layer's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x).
    Silu,
    /// x Φ(x).
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// First half · gelu(second half): halves the width.
    Geglu,
}

/// act(x Wᵀ + bias) + residual. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`].
pub fn linear(
    _x: &Tensor,
    _w: &Weight,
    _bias: Option<&Tensor>,
    _act: Activation,
    _residual: Option<&Tensor>,
) -> Tensor {
    panic!("not yet")
}
