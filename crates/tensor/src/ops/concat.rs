//! Putting tensors together, and taking them apart.

use crate::Tensor;
use crate::cpu::layout;
use crate::tape::record;

/// Tensors (.., Cᵢ) of one dtype, alike but for the last dimension → (.., Σ Cᵢ). At least one.
pub fn concat(xs: &[&Tensor]) -> Tensor {
    let y = layout::concat(xs);
    let parts: Vec<_> = xs.iter().map(|x| (x.last_dim(), x.requires_grad())).collect();
    let inputs: Vec<_> = xs.iter().copied().map(Some).collect();
    record(y, &inputs, move |dy| {
        let mut start = 0;
        let grad = |(width, needed): (usize, bool)| {
            let grad = needed.then(|| layout::columns(dy, start, width));
            start += width;
            grad
        };
        parts.into_iter().map(grad).collect()
    })
}

/// Tensors (Bᵢ, ..) of one dtype, alike but for the first dimension → (Σ Bᵢ, ..). At least one.
pub fn cat_batch(xs: &[&Tensor]) -> Tensor {
    let y = layout::cat_batch(xs);
    let parts: Vec<_> = xs.iter().map(|x| (x.dim(0), x.requires_grad())).collect();
    let inputs: Vec<_> = xs.iter().copied().map(Some).collect();
    record(y, &inputs, move |dy| {
        let mut start = 0;
        let grad = |(batch, needed): (usize, bool)| {
            let grad = needed.then(|| layout::slice_batch(dy, start, batch));
            start += batch;
            grad
        };
        parts.into_iter().map(grad).collect()
    })
}

/// Columns `start..start + len` of the last dimension: x (.., C) → (.., len).
pub fn slice_last(x: &Tensor, start: usize, len: usize) -> Tensor {
    let width = x.last_dim();
    assert!(start + len <= width, "columns {start}..{} of {width}", start + len);
    let y = layout::columns(x, start, len);
    record(y, &[Some(x)], move |dy| vec![Some(layout::uncolumns(dy, start, width))])
}

/// Entries `start..start + len` of the first dimension: x (B, ..) → (len, ..).
pub fn slice_batch(x: &Tensor, start: usize, len: usize) -> Tensor {
    let batch = x.dim(0);
    assert!(start + len <= batch, "entries {start}..{} of {batch}", start + len);
    let y = layout::slice_batch(x, start, len);
    record(y, &[Some(x)], move |dy| vec![Some(layout::unslice_batch(dy, start, batch))])
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
