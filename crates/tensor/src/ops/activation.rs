//! Activation functions.

use super::check;
use crate::backend::{Activation, RowOp, Unary};
use crate::tape::record;
use crate::tensor::Tensor;

impl Activation {
    /// The activation as an op of its own: x (.., n) → (.., n), or (.., n / 2) for [`Activation::Geglu`].
    ///
    /// # Panics
    /// GEGLU of an odd n.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match (self, self.unary()) {
            (_, Some(op)) => unary(op, x),
            (Activation::Geglu, None) => geglu(x),
            (_, None) => x.clone(),
        }
    }
}

/// x · sigmoid(x), of any shape.
pub fn silu(x: &Tensor) -> Tensor {
    unary(Unary::Silu, x)
}

/// x Φ(x) with the exact Φ (PyTorch's default), of any shape.
pub fn gelu(x: &Tensor) -> Tensor {
    unary(Unary::Gelu, x)
}

/// x · sigmoid(1.702 x), of any shape.
pub fn quick_gelu(x: &Tensor) -> Tensor {
    unary(Unary::QuickGelu, x)
}

/// x, or 0 where x is less, of any shape.
pub fn relu(x: &Tensor) -> Tensor {
    unary(Unary::Relu, x)
}

/// x, or slope · x where x is less than 0, of any shape.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Tensor {
    unary(Unary::LeakyRelu(slope), x)
}

fn unary(op: Unary, x: &Tensor) -> Tensor {
    let y = x.kernels().unary(op, x);
    let input = x.detach();
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().unary_grad(op, &input, dy))])
}

/// x (.., 2n) → (.., n): first half · gelu(second half).
///
/// # Panics
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Tensor {
    check::has_rows("geglu", x);
    let width = x.last_dim();
    assert!(width.is_multiple_of(2), "geglu: last dimension of x: expected an even number, found {width}");
    let y = x.kernels().rows(RowOp::Geglu, x);
    let input = x.detach();
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().rows_grad(RowOp::Geglu, &input, dy))])
}
