//! Putting tensors together, and taking them apart.

use super::check;
use crate::backend::Move;
use crate::tape::record;
use crate::tensor::Tensor;

/// Tensors (.., Cᵢ) of one dtype, alike but for the last dimension → (.., Σ Cᵢ).
///
/// # Panics
/// If there is none, or they are not alike.
pub fn concat(xs: &[&Tensor]) -> Tensor {
    let first = *xs.first().expect("concat: expected at least one tensor, found none");
    for x in xs {
        check::has_rows("concat", x);
        let like = [&first.shape()[..first.shape().len() - 1], &[x.last_dim()]].concat();
        check::shape("concat", "a tensor", x, &like);
        check::dtype("concat", "a tensor", x, first.dtype());
    }
    let y = first.kernels().moved(Move::Concat, xs);
    let parts: Vec<_> = xs.iter().map(|x| (x.last_dim(), x.requires_grad())).collect();
    let inputs: Vec<_> = xs.iter().map(|x| x.node()).collect();
    record(y, &inputs, move |dy| {
        let mut start = 0;
        let grad = |(width, needed): (usize, bool)| {
            let grad = needed.then(|| dy.kernels().moved(Move::Columns { start, len: width }, &[dy]));
            start += width;
            grad
        };
        parts.into_iter().map(grad).collect()
    })
}

/// Tensors (Bᵢ, ..) of one dtype, alike but for the first dimension → (Σ Bᵢ, ..).
///
/// # Panics
/// If there is none, or they are not alike.
pub fn cat_batch(xs: &[&Tensor]) -> Tensor {
    let first = *xs.first().expect("cat_batch: expected at least one tensor, found none");
    for x in xs {
        check::has_rows("cat_batch", x);
        check::has_rows("cat_batch", first);
        check::shape("cat_batch", "a tensor", x, &[&[x.dim(0)], &first.shape()[1..]].concat());
        check::dtype("cat_batch", "a tensor", x, first.dtype());
    }
    let y = first.kernels().moved(Move::CatBatch, xs);
    let parts: Vec<_> = xs.iter().map(|x| (x.dim(0), x.requires_grad())).collect();
    let inputs: Vec<_> = xs.iter().map(|x| x.node()).collect();
    record(y, &inputs, move |dy| {
        let mut start = 0;
        let grad = |(batch, needed): (usize, bool)| {
            let grad = needed.then(|| dy.kernels().moved(Move::SliceBatch { start, len: batch }, &[dy]));
            start += batch;
            grad
        };
        parts.into_iter().map(grad).collect()
    })
}

/// Columns `start..start + len` of the last dimension: x (.., C) → (.., len).
///
/// # Panics
/// If there are no such columns.
pub fn slice_last(x: &Tensor, start: usize, len: usize) -> Tensor {
    check::has_rows("slice_last", x);
    let width = x.last_dim();
    let fits = start.checked_add(len).is_some_and(|end| end <= width);
    assert!(fits, "slice_last: columns: expected at most {width}, found {len} from {start} on");
    let y = x.kernels().moved(Move::Columns { start, len }, &[x]);
    let back = Move::PlaceColumns { start, width };
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().moved(back, &[dy]))])
}

/// Entries `start..start + len` of the first dimension: x (B, ..) → (len, ..).
///
/// # Panics
/// If there are no such entries.
pub fn slice_batch(x: &Tensor, start: usize, len: usize) -> Tensor {
    check::has_rows("slice_batch", x);
    let batch = x.dim(0);
    let fits = start.checked_add(len).is_some_and(|end| end <= batch);
    assert!(fits, "slice_batch: entries: expected at most {batch}, found {len} from {start} on");
    let y = x.kernels().moved(Move::SliceBatch { start, len }, &[x]);
    let back = Move::PlaceBatch { start, batch };
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().moved(back, &[dy]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices are what was put together.
    #[test]
    fn slice_last_undoes_concat() {
        let a = Tensor::from_vec((0..6).map(|i| i as f32).collect(), &[3, 2]);
        let b = Tensor::from_vec((6..15).map(|i| i as f32).collect(), &[3, 3]);
        let y = concat(&[&a, &b]);
        assert_eq!(slice_last(&y, 0, 2).f32s(), a.f32s());
        assert_eq!(slice_last(&y, 2, 3).f32s(), b.f32s());
    }
}
