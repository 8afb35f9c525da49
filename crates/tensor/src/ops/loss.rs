//! From a tensor to one number. Results are f32, of shape ().

use super::{mul, scale};
use crate::cpu::{elementwise, reduce};
use crate::tape::record;
use crate::{DType, Tensor};

/// The sum of all elements: any shape → (), f32.
pub fn sum(x: &Tensor) -> Tensor {
    let y = Tensor::from_slice(&[reduce::sum(x)], &[]);
    let (shape, dtype) = (x.shape().to_vec(), x.dtype());
    record(y, &[Some(x)], move |dy| vec![Some(Tensor::full(&shape, dy.f32s()[0], dtype))])
}

/// The mean of all elements: any shape, not empty → (), f32.
pub fn mean(x: &Tensor) -> Tensor {
    scale(&sum(x), 1.0 / x.numel() as f32)
}

/// The mean of weight · (pred − target)² over all elements: two tensors of one shape → (), f32.
///
/// `weight` is constant: one number for each entry of the outer dimensions of `pred`, so (B) weighs
/// images, (B, H, W) or (B, H, W, 1) masks pixels, pred's own shape weighs elements.
/// The mean is over the number of elements, whatever the weights' sum.
pub fn mse(pred: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Tensor {
    assert_eq!(pred.shape(), target.shape());
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
    assert!(shape.starts_with(outer), "a weight {:?} for {shape:?}", weight.shape());
    let inner = shape[outer.len()..].iter().product::<usize>();
    let values: Vec<f32> = weight.to_vec().into_iter().flat_map(|w| std::iter::repeat_n(w, inner)).collect();
    Tensor::from_slice(&values, shape)
}
