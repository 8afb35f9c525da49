//! Steps of optimizers. All tensors are f32, on one device and off the tape, and those that change do so in place: a tensor
//! that shares its memory gets a copy first.

use super::check;
use crate::backend::{AdafactorArgs, AdafactorAverages, AdamWArgs};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Σ x² of an f32 tensor.
///
/// # Panics
/// If the dtype is another.
pub fn sum_squares(x: &Tensor) -> f64 {
    check::dtype("sum_squares", "x", x, DType::F32);
    x.kernels().sum_squares(x)
}

/// sum becomes sum + x.
///
/// # Panics
/// If shapes differ, or a dtype is not f32.
pub fn add_to(sum: &mut Tensor, x: &Tensor) {
    check::dtype("add_to", "sum", sum, DType::F32);
    check::alike("add_to", "x", x, sum);
    x.kernels().add_to(sum, x);
}

/// AdamW (Loshchilov and Hutter, 2019): updates the averages of a gradient and of its squares, all of one shape. The gradient
/// becomes the direction of a [`step`]; the result is the step's factor, ().
///
/// # Panics
/// If shapes differ, or a dtype is not f32.
pub fn adamw(args: &AdamWArgs, averages: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor {
    check::dtype("adamw", "grad", grad, DType::F32);
    averages.iter().for_each(|average| check::alike("adamw", "an average", average, grad));
    grad.kernels().adamw(args, averages, grad)
}

/// Adafactor (Shazeer and Stern, 2018) without a first moment: updates the averages of a gradient's squares. The gradient
/// becomes the direction of a [`step`]; the result is the step's factor, (): 0 for an empty gradient.
///
/// # Panics
/// If the averages are not of the gradient's shape, or a dtype is not f32.
pub fn adafactor(args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> Tensor {
    check::dtype("adafactor", "grad", grad, DType::F32);
    let shape = grad.shape();
    match &averages {
        AdafactorAverages::Full(average) => check::alike("adafactor", "the averages", average, grad),
        AdafactorAverages::Factored { rows, columns } => {
            let [matrices @ .., height, width] = shape else {
                panic!("adafactor: shape of grad: expected (.., rows, columns), found {shape:?}")
            };
            check::shape("adafactor", "the rows' averages", rows, &[matrices, &[*height]].concat());
            check::shape("adafactor", "the columns' averages", columns, &[matrices, &[*width]].concat());
        }
    }
    if grad.numel() == 0 {
        return grad.device().zeros(&[], DType::F32);
    }
    grad.kernels().adafactor(args, averages, grad)
}

/// Each element p becomes p · keep − factor · d, with the d of `direction`, of the same shape, and a factor ().
///
/// # Panics
/// If shapes differ, or a dtype is not f32.
pub fn step(p: &mut Tensor, keep: f32, factor: &Tensor, direction: &Tensor) {
    check::dtype("step", "p", p, DType::F32);
    check::alike("step", "direction", direction, p);
    check::shape("step", "factor", factor, &[]);
    direction.kernels().step(p, keep, factor, direction);
}
