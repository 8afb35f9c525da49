//! Sums over rows: the gradients of what is added to each row.

use rayon::prelude::*;

use crate::Tensor;
use crate::cpu::elementwise::with_element;
use crate::cpu::math::Element;

/// Rows that are summed on their own before the partial sums are: fixed, so that the result is too.
const GRAIN: usize = 256;

/// x (.., C) → (C), f32: the sum over all rows. Not differentiable.
pub(crate) fn sum_rows(x: &Tensor) -> Tensor {
    Tensor::from_vec(sums(x, 1), &[x.last_dim()])
}

/// x (B, .., C) → (B, C), f32: the sum over each image's rows. Not differentiable.
pub(crate) fn sum_images(x: &Tensor) -> Tensor {
    Tensor::from_vec(sums(x, x.dim(0)), &[x.dim(0), x.last_dim()])
}

fn sums(x: &Tensor, groups: usize) -> Vec<f32> {
    if x.numel() == 0 {
        return vec![0.0; groups * x.last_dim()];
    }
    with_element!(x.dtype(), T => {
        let columns = x.last_dim();
        let group = x.numel() / groups;
        let sum_group = |group: &[T]| {
            let partial: Vec<_> = group.par_chunks(GRAIN * columns).map(|rows| sum_chunk(rows, columns)).collect();
            sum_chunk(&partial.concat(), columns)
        };
        x.elements::<T>().chunks(group).flat_map(sum_group).collect()
    })
}

fn sum_chunk<T: Element>(rows: &[T], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for row in rows.chunks_exact(columns) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.to_f32();
        }
    }
    sums
}
