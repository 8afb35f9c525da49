//! Kernels that move elements.

use super::{tensor, values};
use crate::backend::Move;
use crate::dtype::DType;
use crate::tensor::Tensor;

pub(super) fn moved(op: Move, xs: &[&Tensor]) -> Tensor {
    let x = xs[0];
    let last = x.shape().len().saturating_sub(1);
    match op {
        Move::Concat => joined(xs, last),
        Move::CatBatch => joined(xs, 0),
        Move::Columns { start, len } => range(x, last, start, len),
        Move::SliceBatch { start, len } => range(x, 0, start, len),
        Move::PlaceColumns { start, width } => placed(x, last, start, width),
        Move::PlaceBatch { start, batch } => placed(x, 0, start, batch),
        Move::Canvas { height, width } => {
            let (h, w) = (height.min(x.dim(1)), width.min(x.dim(2)));
            placed(&placed(&range(&range(x, 1, 0, h), 2, 0, w), 1, 0, height), 2, 0, width)
        }
        Move::Upsample => {
            let [b, h, w, c] = [0, 1, 2, 3].map(|i| x.dim(i));
            from(x, &[b, 2 * h, 2 * w, c], |at| Some(vec![at[0], at[1] / 2, at[2] / 2, at[3]]))
        }
        Move::UpsampleGrad => {
            let [b, h, w, c] = [0, 1, 2, 3].map(|i| x.dim(i));
            let mut sums = vec![0.0; b * h / 2 * w / 2 * c];
            for (i, x) in values(x).into_iter().enumerate() {
                let [image, row, column] = [i / (h * w * c), i / (w * c) % h, i / c % w];
                sums[((image * h / 2 + row / 2) * (w / 2) + column / 2) * c + i % c] += x;
            }
            tensor(sums, &[b, h / 2, w / 2, c], x.dtype())
        }
        Move::TakeRows { ids } => {
            from(x, &[ids.len(), x.dim(1)], |at| Some(vec![ids[at[0]] as usize, at[1]]))
        }
        Move::AddRows { ids, rows } => {
            let width = x.dim(1);
            let mut sums = vec![0.0; rows * width];
            for (i, x) in values(x).into_iter().enumerate() {
                sums[ids[i / width] as usize * width + i % width] += x;
            }
            tensor(sums, &[rows, width], DType::F32).to_dtype(x.dtype())
        }
        Move::Repeat { shape } => {
            let inner = shape.iter().product::<usize>() / x.numel().max(1);
            let repeated = values(x).into_iter().flat_map(|x| std::iter::repeat_n(x, inner));
            tensor(repeated.collect(), shape, x.dtype())
        }
    }
}

/// The tensor of this shape whose element at each index is that of x at `source` of the index, or 0.
fn from(x: &Tensor, shape: &[usize], source: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Tensor {
    let found = values(x);
    let element = |i: usize| {
        let (mut rest, mut index) = (i, vec![0; shape.len()]);
        for (index, size) in index.iter_mut().zip(shape).rev() {
            (*index, rest) = (rest % size, rest / size);
        }
        let source = source(&index);
        source.map_or(0.0, |at| found[at.iter().zip(x.shape()).fold(0, |sum, (at, size)| sum * size + at)])
    };
    tensor((0..shape.iter().product()).map(element).collect(), shape, x.dtype())
}

fn with_size(x: &Tensor, axis: usize, size: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape[axis] = size;
    shape
}

fn range(x: &Tensor, axis: usize, start: usize, len: usize) -> Tensor {
    from(x, &with_size(x, axis, len), |at| {
        let mut at = at.to_vec();
        at[axis] += start;
        Some(at)
    })
}

/// Zeros, with x from `start` on.
fn placed(x: &Tensor, axis: usize, start: usize, size: usize) -> Tensor {
    from(x, &with_size(x, axis, size), |at| {
        let mut at = at.to_vec();
        at[axis] = at[axis].checked_sub(start).filter(|at| *at < x.dim(axis))?;
        Some(at)
    })
}

fn joined(xs: &[&Tensor], axis: usize) -> Tensor {
    let size = xs.iter().map(|x| x.dim(axis)).sum();
    let mut start = 0;
    let mut sum: Option<Vec<f64>> = None;
    for x in xs {
        let part = values(&placed(x, axis, start, size));
        start += x.dim(axis);
        sum = Some(match sum {
            Some(sum) => sum.into_iter().zip(part).map(|(a, b)| a + b).collect(),
            None => part,
        });
    }
    tensor(sum.expect("one tensor at least"), &with_size(xs[0], axis, size), xs[0].dtype())
}
