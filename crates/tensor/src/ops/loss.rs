//! From a tensor to one number. Results are f32, of shape ().

use super::{check, mul, scale};
use crate::backend::{Binary, Move, Over, Unary};
use crate::dtype::DType;
use crate::tape::record;
use crate::tensor::Tensor;

/// The sum of all elements: any shape → (), f32.
pub fn sum(x: &Tensor) -> Tensor {
    let y = x.kernels().sum(x, Over::All);
    let (shape, dtype) = (x.shape().to_vec(), x.dtype());
    record(y, &[x.node()], move |dy| vec![Some(repeated(dy, &shape).to_dtype(dtype))])
}

/// The mean of all elements: any shape → (), f32. NaN of none.
pub fn mean(x: &Tensor) -> Tensor {
    scale(&sum(x), 1.0 / x.numel() as f32)
}

/// The mean of weight · (pred − target)² over all elements: two tensors of one shape → (), f32.
///
/// `weight` is constant: one number for each entry of the outer dimensions of `pred`, so (B) weighs
/// images, (B, H, W) or (B, H, W, 1) masks pixels, pred's own shape weighs elements.
/// The mean is over the number of elements, whatever the weights' sum; NaN of none.
///
/// # Panics
/// If the shapes of `pred` and `target` differ, or that of `weight` is not their beginning.
pub fn mse(pred: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Tensor {
    check::shape("mse", "target", target, pred.shape());
    let (p, t) = (pred.detach().to_dtype(DType::F32), target.detach().to_dtype(DType::F32));
    let kernels = pred.kernels();
    let difference = kernels.binary(Binary::Subtract, &p, &t);
    let weighted = match weight {
        Some(weight) => {
            check_weight(weight, pred.shape());
            mul(&repeated(&weight.detach().to_dtype(DType::F32), pred.shape()), &difference)
        }
        None => difference.clone(),
    };
    let count = pred.numel() as f32;
    let sum = kernels.sum(&mul(&weighted, &difference), Over::All);
    let y = kernels.unary(Unary::Divide(count), &sum);
    let (pred_dtype, target_dtype) = (pred.dtype(), target.dtype());
    record(y, &[pred.node(), target.node()], move |dy| {
        let scaled = |factor: f32| dy.kernels().scale_by(&weighted, factor, dy);
        let (dpred, dtarget) = (scaled(2.0 / count), scaled(-2.0 / count));
        vec![Some(dpred.to_dtype(pred_dtype)), Some(dtarget.to_dtype(target_dtype))]
    })
}

/// Repeats an element for outer dimensions over the inner ones.
fn repeated(x: &Tensor, shape: &[usize]) -> Tensor {
    x.kernels().moved(Move::Repeat { shape }, &[x])
}

/// That the weight has the outer dimensions of `shape`, and none or only ones further in.
fn check_weight(weight: &Tensor, shape: &[usize]) {
    let outer = weight.shape().iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
    assert!(
        shape.starts_with(&weight.shape()[..outer]),
        "mse: shape of weight: expected the outer dimensions of {shape:?}, found {:?}",
        weight.shape()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A weight counts for all that is inside its entry, and does not change what the mean divides by.
    #[test]
    fn weights_weigh_their_entries() {
        let pred = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[2, 2, 2]);
        let target = Tensor::zeros(&[2, 2, 2], DType::F32);
        let loss = |weight: &[f32], shape: &[usize]| {
            mse(&pred, &target, Some(&Tensor::from_slice(weight, shape))).f32s()[0]
        };
        let squares = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, 64.0];
        let sum = |range: std::ops::Range<usize>| squares[range].iter().sum::<f32>();
        assert_eq!(loss(&[2.0, 0.5], &[2]), (2.0 * sum(0..4) + 0.5 * sum(4..8)) / 8.0);
        let mask = (sum(0..2) + 3.0 * sum(6..8)) / 8.0;
        assert_eq!(loss(&[1.0, 0.0, 0.0, 3.0], &[2, 2]), mask);
        assert_eq!(loss(&[1.0, 0.0, 0.0, 3.0], &[2, 2, 1]), mask);
        assert_eq!(loss(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &[2, 2, 2]), 4.0 / 8.0);
    }
}
