//! Softmax.

use crate::Tensor;
use crate::cpu::rows;
use crate::tape::record;

/// Softmax over the last dimension: x (.., C) → (.., C), each row positive with sum 1.
pub fn softmax(x: &Tensor) -> Tensor {
    let y = rows::softmax(x);
    let result = y.clone();
    record(y, &[Some(x)], move |dy| vec![Some(rows::softmax_backward(&result, dy))])
}
