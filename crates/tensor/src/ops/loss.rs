//! From a tensor to one number. Results are f32, of shape ().

use super::{check, mul, scale};
use crate::cpu::{elementwise, reduce};
use crate::tape::record;
use crate::{DType, Tensor};

/// The sum of all elements: any shape → (), f32.
pub fn sum(x: &Tensor) -> Tensor {
    let y = Tensor::from_slice(&[reduce::sum(x)], &[]);
    let (shape, dtype) = (x.shape().to_vec(), x.dtype());
    record(y, &[Some(x)], move |dy| vec![Some(Tensor::full(&shape, dy.f32s()[0], dtype))])
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
    let difference = elementwise::zip(&p, &t, |p, t| p - t);
    let weighted = match weight {
        Some(weight) => mul(&spread(weight, pred.shape()), &difference),
        None => difference.clone(),
    };
    let count = pred.numel() as f32;
    let y = Tensor::from_slice(&[reduce::sum(&mul(&weighted, &difference)) / count], &[]);
    let (pred_dtype, target_dtype) = (pred.dtype(), target.dtype());
    record(y, &[Some(pred), Some(target)], move |dy| {
        let factor = 2.0 / count * dy.f32s()[0];
        let dpred = scale(&weighted, factor).to_dtype(pred_dtype);
        vec![Some(dpred), Some(scale(&weighted, -factor).to_dtype(target_dtype))]
    })
}

/// Repeats a weight for outer dimensions over the inner ones.
fn spread(weight: &Tensor, shape: &[usize]) -> Tensor {
    let outer = weight.shape().iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
    let outer = &weight.shape()[..outer];
    assert!(
        shape.starts_with(outer),
        "mse: shape of weight: expected the outer dimensions of {shape:?}, found {:?}",
        weight.shape()
    );
    let inner = shape[outer.len()..].iter().product::<usize>();
    let values: Vec<f32> = weight.to_vec().into_iter().flat_map(|w| std::iter::repeat_n(w, inner)).collect();
    Tensor::from_slice(&values, shape)
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
