//! Softmax.

use super::check;
use crate::Tensor;
use crate::cpu::rows;
use crate::tape::record;

/// Softmax over the last dimension: x (.., C) → (.., C), each row positive with sum 1.
///
/// # Panics
/// If x has no dimension.
pub fn softmax(x: &Tensor) -> Tensor {
    check::has_rows("softmax", x);
    let y = rows::softmax(x);
    let result = y.clone();
    record(y, &[Some(x)], move |dy| vec![Some(rows::softmax_backward(&result, dy))])
}
