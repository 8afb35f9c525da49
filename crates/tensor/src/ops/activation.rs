//! Activation functions.

use super::check;
use crate::Tensor;
use crate::cpu::{elementwise, math, rows};
use crate::tape::record;

/// x · sigmoid(x), of any shape.
pub fn silu(x: &Tensor) -> Tensor {
    unary(x, math::silu, math::silu_grad)
}

/// x Φ(x) with the exact Φ (PyTorch's default), of any shape.
pub fn gelu(x: &Tensor) -> Tensor {
    unary(x, math::gelu, math::gelu_grad)
}

/// x · sigmoid(1.702 x), of any shape.
pub fn quick_gelu(x: &Tensor) -> Tensor {
    unary(x, math::quick_gelu, math::quick_gelu_grad)
}

/// Generic, not over function pointers: `f` is inlined into vectorised loops.
fn unary<F, D>(x: &Tensor, f: F, derivative: D) -> Tensor
where
    F: Fn(f32) -> f32 + Sync,
    D: Fn(f32) -> f32 + Send + Sync + 'static,
{
    let y = elementwise::map(x, f);
    let input = x.detach();
    record(y, &[Some(x)], move |dy| vec![Some(elementwise::zip(&input, dy, move |x, dy| dy * derivative(x)))])
}

/// x (.., 2n) → (.., n): first half · gelu(second half).
///
/// # Panics
/// If the last dimension is odd.
pub fn geglu(x: &Tensor) -> Tensor {
    check::has_rows("geglu", x);
    let width = x.last_dim();
    assert!(width.is_multiple_of(2), "geglu: last dimension of x: expected an even number, found {width}");
    let y = rows::geglu(x);
    let input = x.detach();
    record(y, &[Some(x)], move |dy| vec![Some(rows::geglu_backward(&input, dy))])
}
