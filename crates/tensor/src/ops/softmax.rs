//! Softmax.

use super::check;
use crate::backend::RowOp;
use crate::tape::record;
use crate::tensor::Tensor;

/// Softmax over the last dimension: x (.., C) → (.., C), each row positive with sum 1.
///
/// # Panics
/// If x has no dimension.
pub fn softmax(x: &Tensor) -> Tensor {
    check::has_rows("softmax", x);
    let y = x.kernels().rows(RowOp::Softmax, x);
    let result = y.clone();
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().rows_grad(RowOp::Softmax, &result, dy))])
}
