//! The checks that ops make of their inputs. One that fails panics, and names the op and the input, with expected and found.

use crate::dtype::DType;
use crate::tensor::Tensor;

/// That `x`, the op's input `name`, has this shape.
#[track_caller]
pub(super) fn shape(op: &str, name: &str, x: &Tensor, expected: &[usize]) {
    assert!(x.shape() == expected, "{op}: shape of {name}: expected {expected:?}, found {:?}", x.shape());
}

/// That `x`, the op's input `name`, has this dtype.
#[track_caller]
pub(super) fn dtype(op: &str, name: &str, x: &Tensor, expected: DType) {
    assert!(x.dtype() == expected, "{op}: dtype of {name}: expected {expected}, found {}", x.dtype());
}

/// That `x`, the op's input `name`, has the shape and the dtype of another.
#[track_caller]
pub(super) fn alike(op: &str, name: &str, x: &Tensor, other: &Tensor) {
    shape(op, name, x, other.shape());
    dtype(op, name, x, other.dtype());
}

/// That `x` has at least one dimension.
#[track_caller]
pub(super) fn has_rows(op: &str, x: &Tensor) {
    assert!(!x.shape().is_empty(), "{op}: shape of x: expected (.., C), found []");
}

/// The dimensions of an image (B, H, W, C).
#[track_caller]
pub(super) fn image(op: &str, x: &Tensor) -> [usize; 4] {
    let found = x.shape();
    found.try_into().unwrap_or_else(|_| panic!("{op}: shape of x: expected (B, H, W, C), found {found:?}"))
}
