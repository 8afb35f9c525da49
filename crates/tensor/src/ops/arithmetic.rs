//! Sums and products of tensors of one shape.

use super::check;
use crate::backend::{Binary, Unary};
use crate::tape::record;
use crate::tensor::Tensor;

/// a + b, of one shape and dtype.
///
/// # Panics
/// If shapes or dtypes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    check::alike("add", "b", b, a);
    let y = a.kernels().binary(Binary::Add, a, b);
    record(y, &[a.node(), b.node()], |dy| vec![Some(dy.clone()), Some(dy.clone())])
}

/// a · b, element by element, of one shape and dtype.
///
/// # Panics
/// If shapes or dtypes differ.
pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    check::alike("mul", "b", b, a);
    let y = a.kernels().binary(Binary::Multiply, a, b);
    // Each factor is kept for the other's gradient.
    let kept_a = b.requires_grad().then(|| a.detach());
    let kept_b = a.requires_grad().then(|| b.detach());
    record(y, &[a.node(), b.node()], move |dy| vec![kept_b.map(|b| mul(dy, &b)), kept_a.map(|a| mul(dy, &a))])
}

/// factor · x.
pub fn scale(x: &Tensor, factor: f32) -> Tensor {
    let y = x.kernels().unary(Unary::Scale(factor), x);
    record(y, &[x.node()], move |dy| vec![Some(scale(dy, factor))])
}

/// The linear combination Σ factorᵢ · xᵢ of at least one tensor, of one shape and dtype.
///
/// # Panics
/// If there is none, or shapes or dtypes differ.
pub fn lincomb(terms: &[(f32, &Tensor)]) -> Tensor {
    let (&(first, x), rest) = terms.split_first().expect("lincomb: expected at least one term, found none");
    rest.iter().for_each(|(_, other)| check::alike("lincomb", "a term", other, x));
    rest.iter().fold(scale(x, first), |sum, &(factor, x)| {
        let y = x.kernels().binary(Binary::AddScaled(factor), &sum, x);
        record(y, &[sum.node(), x.node()], move |dy| vec![Some(dy.clone()), Some(scale(dy, factor))])
    })
}
