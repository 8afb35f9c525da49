//! Kernels that treat each row (the last dimension) alone: softmax, GEGLU.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::with_element;
use super::isa::{isa, simd_fn};
use super::math::{self, Element};
use super::reduce::{max_of, rows_per_run, sum_of, sums_of_pairs};
use crate::tensor::Tensor;

simd_fn! {
    fn softmax_run<T: Element>(x: &[T], y: &mut [T], scratch: &mut [f32]) {
        let width = scratch.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let max = max_of(x);
            for (e, x) in scratch.iter_mut().zip(x) {
                *e = math::exp(x.to_f32() - max);
            }
            let scale = 1.0 / sum_of(scratch, |e| e);
            for (y, e) in y.iter_mut().zip(&*scratch) {
                *y = T::from_f32(e * scale);
            }
        }
    }
}

simd_fn! {
    /// dx = y (dy − Σ y dy).
    fn softmax_backward_run<T: Element>(y: &[T], dy: &[T], dx: &mut [T], width: usize) {
        let rows = y.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (sum, _) = sums_of_pairs(y, dy, |y, dy| (y * dy, 0.0));
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                *dx = T::from_f32(y.to_f32() * (dy.to_f32() - sum));
            }
        }
    }
}

simd_fn! {
    fn geglu_run<T: Element>(x: &[T], y: &mut [T], width: usize) {
        for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            let (value, gate) = x.split_at(width);
            for ((y, value), gate) in y.iter_mut().zip(value).zip(gate) {
                *y = T::from_f32(value.to_f32() * math::gelu(gate.to_f32()));
            }
        }
    }
}

simd_fn! {
    fn geglu_backward_run<T: Element>(x: &[T], dy: &[T], dx: &mut [T], width: usize) {
        let rows = x.chunks_exact(2 * width).zip(dx.chunks_exact_mut(2 * width));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact(width)) {
            let (value, gate) = x.split_at(width);
            let (dvalue, dgate) = dx.split_at_mut(width);
            let (gate, dgate) = (&gate[..width], &mut dgate[..width]);
            for c in 0..width {
                let (gate, dy) = (gate[c].to_f32(), dy[c].to_f32());
                dvalue[c] = T::from_f32(dy * math::gelu(gate));
                dgate[c] = T::from_f32(dy * value[c].to_f32() * math::gelu_grad(gate));
            }
        }
    }
}

/// Softmax over the last dimension.
pub(crate) fn softmax(x: &Tensor) -> Tensor {
    let width = x.last_dim();
    let run = (rows_per_run(width) * width).max(1);
    let mut out = Buffer::uninit(x.numel() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let runs = out.as_mut_slice::<T>().par_chunks_mut(run).zip(x.elements::<T>().par_chunks(run));
        runs.for_each(|(y, x)| softmax_run(isa(), x, y, &mut vec![0.0; width]));
    });
    Tensor::new(out, x.shape(), x.dtype())
}

/// The gradient of softmax's input, from its result.
pub(crate) fn softmax_backward(y: &Tensor, dy: &Tensor) -> Tensor {
    assert_eq!((y.shape(), y.dtype()), (dy.shape(), dy.dtype()));
    let width = y.last_dim();
    let run = (rows_per_run(width) * width).max(1);
    let mut out = Buffer::uninit(y.numel() * y.dtype().size());
    with_element!(y.dtype(), T => {
        let inputs = y.elements::<T>().par_chunks(run).zip(dy.elements::<T>().par_chunks(run));
        let runs = out.as_mut_slice::<T>().par_chunks_mut(run).zip(inputs);
        runs.for_each(|(dx, (y, dy))| softmax_backward_run(isa(), y, dy, dx, width));
    });
    Tensor::new(out, y.shape(), y.dtype())
}

/// x (.., 2n) → (.., n): first half · gelu(second half).
pub(crate) fn geglu(x: &Tensor) -> Tensor {
    let width = x.last_dim() / 2;
    let run = (rows_per_run(2 * width) * width).max(1);
    let mut out = Buffer::uninit(x.numel() / 2 * x.dtype().size());
    with_element!(x.dtype(), T => {
        let runs = out.as_mut_slice::<T>().par_chunks_mut(run).zip(x.elements::<T>().par_chunks(2 * run));
        runs.for_each(|(y, x)| geglu_run(isa(), x, y, width));
    });
    let mut shape = x.shape().to_vec();
    shape[x.shape().len() - 1] = width;
    Tensor::new(out, &shape, x.dtype())
}

/// The gradient of GEGLU's input x (.., 2n), from that of its result (.., n).
pub(crate) fn geglu_backward(x: &Tensor, dy: &Tensor) -> Tensor {
    assert_eq!((x.numel(), x.dtype()), (2 * dy.numel(), dy.dtype()));
    let width = x.last_dim() / 2;
    let run = (rows_per_run(2 * width) * width).max(1);
    let mut out = Buffer::uninit(x.numel() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let inputs = x.elements::<T>().par_chunks(2 * run).zip(dy.elements::<T>().par_chunks(run));
        let runs = out.as_mut_slice::<T>().par_chunks_mut(2 * run).zip(inputs);
        runs.for_each(|(dx, (x, dy))| geglu_backward_run(isa(), x, dy, dx, width));
    });
    Tensor::new(out, x.shape(), x.dtype())
}
