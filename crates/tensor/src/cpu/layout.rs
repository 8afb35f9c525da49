//! Kernels that move elements: nearest 2×, concatenation, rows by number.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::{convert, full, with_element};
use super::isa::{isa, simd_fn};
use super::math::Element;
use super::reduce::rows_per_run;
use crate::dtype::DType;
use crate::tensor::Tensor;

/// x (B, H, W, C) → (B, 2H, 2W, C): each pixel four times.
pub(crate) fn upsample_nearest2x(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else { panic!("an image is (B, H, W, C), found {:?}", x.shape()) };
    let mut out = Buffer::uninit(4 * x.numel() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let lines = out.as_mut_slice::<T>().par_chunks_mut((4 * w * c).max(1));
        lines.zip(x.elements::<T>().par_chunks((w * c).max(1))).for_each(|(y, x)| {
            let (above, below) = y.split_at_mut(2 * w * c);
            for (y, x) in above.chunks_exact_mut(2 * c).zip(x.chunks_exact(c)) {
                y[..c].copy_from_slice(x);
                y[c..].copy_from_slice(x);
            }
            below.copy_from_slice(above);
        });
    });
    Tensor::new(out, &[b, 2 * h, 2 * w, c], x.dtype())
}

simd_fn! {
    /// One line of the result from two lines of twice its pixels.
    fn add_quads<T: Element>(above: &[T], below: &[T], dx: &mut [T], channels: usize) {
        let pairs = above.chunks_exact(2 * channels).zip(below.chunks_exact(2 * channels));
        for (dx, (above, below)) in dx.chunks_exact_mut(channels).zip(pairs) {
            let ((a, b), (c, d)) = (above.split_at(channels), below.split_at(channels));
            let (b, d) = (&b[..channels], &d[..channels]);
            for i in 0..channels {
                dx[i] = T::from_f32((a[i].to_f32() + b[i].to_f32()) + (c[i].to_f32() + d[i].to_f32()));
            }
        }
    }
}

/// dy (B, 2H, 2W, C) → (B, H, W, C): the sum of each four pixels.
pub(crate) fn upsample_nearest2x_backward(dy: &Tensor) -> Tensor {
    let &[b, h2, w2, c] = dy.shape() else { panic!("an image is (B, H, W, C), found {:?}", dy.shape()) };
    let line = w2 * c;
    let mut out = Buffer::uninit(dy.numel() / 4 * dy.dtype().size());
    with_element!(dy.dtype(), T => {
        let lines = out.as_mut_slice::<T>().par_chunks_mut((line / 2).max(1));
        lines.zip(dy.elements::<T>().par_chunks((2 * line).max(1))).for_each(|(dx, dy)| {
            let (above, below) = dy.split_at(line);
            add_quads(isa(), above, below, dx, c);
        });
    });
    Tensor::new(out, &[b, h2 / 2, w2 / 2, c], dy.dtype())
}

/// `parts` matrices (rows, columns), f32 → (rows, columns, parts).
pub(crate) fn interleave(parts: &[Tensor]) -> Tensor {
    let [rows, columns] = [parts[0].dim(0), parts[0].dim(1)];
    let count = parts.len();
    let mut out = Buffer::uninit(rows * columns * count * 4);
    out.as_mut_slice::<f32>().par_chunks_mut((columns * count).max(1)).enumerate().for_each(|(row, out)| {
        for (i, part) in parts.iter().enumerate() {
            let part = &part.f32s()[row * columns..][..columns];
            out[i..].iter_mut().step_by(count).zip(part).for_each(|(y, x)| *y = *x);
        }
    });
    Tensor::new(out, &[rows, columns, count], DType::F32)
}

/// x, its dimensions of 1 at the end left out, is the beginning of `shape`: each element repeated over the rest.
pub(crate) fn repeat(x: &Tensor, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let inner = count / x.numel().max(1);
    let mut out = Buffer::uninit(count * x.dtype().size());
    with_element!(x.dtype(), T => {
        let entries = out.as_mut_slice::<T>().par_chunks_mut(inner.max(1));
        entries.zip(x.elements::<T>().par_iter()).for_each(|(y, x)| y.fill(*x));
    });
    Tensor::new(out, shape, x.dtype())
}

/// x (B, H, W, C) → (B, height, width, C): cut, or continued with zeros, below and on the right.
pub(crate) fn resize_canvas(x: &Tensor, height: usize, width: usize) -> Tensor {
    let &[b, h, w, c] = x.shape() else { panic!("an image is (B, H, W, C), found {:?}", x.shape()) };
    let shape = [b, height, width, c];
    let (rows, line) = (h.min(height), w.min(width) * c);
    let mut out = Buffer::zeroed(shape.iter().product::<usize>() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let lines = out.as_mut_slice::<T>().par_chunks_mut((width * c).max(1)).enumerate();
        lines.filter(|(i, _)| i % height < rows).for_each(|(i, y)| {
            let start = (i / height * h + i % height) * w * c;
            y[..line].copy_from_slice(&x.elements::<T>()[start..start + line]);
        });
    });
    Tensor::new(out, &shape, x.dtype())
}

/// Tensors (.., Cᵢ) of one dtype side by side → (.., Σ Cᵢ).
pub(crate) fn concat(xs: &[&Tensor]) -> Tensor {
    let (first, dtype) = (xs[0], xs[0].dtype());
    let width: usize = xs.iter().map(|x| x.last_dim()).sum();
    let outer = &first.shape()[..first.shape().len() - 1];
    for x in xs {
        assert_eq!((&x.shape()[..x.shape().len() - 1], x.dtype()), (outer, dtype), "concat");
    }
    let shape = [outer, &[width]].concat();
    let rows = rows_per_run(width);
    let mut out = Buffer::uninit(shape.iter().product::<usize>() * dtype.size());
    if width == 0 {
        return Tensor::new(out, &shape, dtype);
    }
    with_element!(dtype, T => {
        let parts: Vec<(&[T], usize)> = xs.iter().map(|x| (x.elements::<T>(), x.last_dim())).collect();
        out.as_mut_slice::<T>().par_chunks_mut(rows * width).enumerate().for_each(|(run, y)| {
            for (i, mut y) in y.chunks_exact_mut(width).enumerate() {
                let row = run * rows + i;
                for &(x, n) in &parts {
                    let (head, tail) = y.split_at_mut(n);
                    head.copy_from_slice(&x[row * n..(row + 1) * n]);
                    y = tail;
                }
            }
        });
    });
    Tensor::new(out, &shape, dtype)
}

/// Columns `start..start + len` of x (.., C).
pub(crate) fn columns(x: &Tensor, start: usize, len: usize) -> Tensor {
    let width = x.last_dim();
    let mut shape = x.shape().to_vec();
    shape[x.shape().len() - 1] = len;
    let rows = rows_per_run(width);
    let mut out = Buffer::uninit(shape.iter().product::<usize>() * x.dtype().size());
    if len == 0 {
        return Tensor::new(out, &shape, x.dtype());
    }
    with_element!(x.dtype(), T => {
        let runs = out.as_mut_slice::<T>().par_chunks_mut(rows * len);
        runs.zip(x.elements::<T>().par_chunks(rows * width)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(len).zip(x.chunks_exact(width)) {
                y.copy_from_slice(&x[start..start + len]);
            }
        });
    });
    Tensor::new(out, &shape, x.dtype())
}

/// Zeros (.., width) with dy (.., len) from column `start` on: the way back of [`columns`].
pub(crate) fn uncolumns(dy: &Tensor, start: usize, width: usize) -> Tensor {
    let len = dy.last_dim();
    let mut shape = dy.shape().to_vec();
    shape[dy.shape().len() - 1] = width;
    if len == 0 {
        return full(&shape, 0.0, dy.dtype());
    }
    let rows = rows_per_run(width);
    let mut out = Buffer::uninit(shape.iter().product::<usize>() * dy.dtype().size());
    with_element!(dy.dtype(), T => {
        let runs = out.as_mut_slice::<T>().par_chunks_mut(rows * width);
        runs.zip(dy.elements::<T>().par_chunks(rows * len)).for_each(|(y, dy)| {
            for (y, dy) in y.chunks_exact_mut(width).zip(dy.chunks_exact(len)) {
                y.fill(T::from_f32(0.0));
                y[start..start + len].copy_from_slice(dy);
            }
        });
    });
    Tensor::new(out, &shape, dy.dtype())
}

/// Tensors (Bᵢ, ..) of one dtype one after the other → (Σ Bᵢ, ..).
pub(crate) fn cat_batch(xs: &[&Tensor]) -> Tensor {
    let (first, dtype) = (xs[0], xs[0].dtype());
    for x in xs {
        assert_eq!((&x.shape()[1..], x.dtype()), (&first.shape()[1..], dtype), "cat_batch");
    }
    let mut shape = first.shape().to_vec();
    shape[0] = xs.iter().map(|x| x.dim(0)).sum();
    let mut out = Buffer::uninit(shape.iter().product::<usize>() * dtype.size());
    with_element!(dtype, T => {
        let mut y = out.as_mut_slice::<T>();
        for x in xs {
            let (head, tail) = y.split_at_mut(x.numel());
            head.copy_from_slice(x.elements::<T>());
            y = tail;
        }
    });
    Tensor::new(out, &shape, dtype)
}

/// Entries `start..start + len` of the first dimension.
pub(crate) fn slice_batch(x: &Tensor, start: usize, len: usize) -> Tensor {
    let entry = x.shape()[1..].iter().product::<usize>();
    let mut shape = x.shape().to_vec();
    shape[0] = len;
    let mut out = Buffer::uninit(len * entry * x.dtype().size());
    with_element!(x.dtype(), T => {
        out.as_mut_slice::<T>().copy_from_slice(&x.elements::<T>()[start * entry..(start + len) * entry]);
    });
    Tensor::new(out, &shape, x.dtype())
}

/// Zeros (batch, ..) with dy (len, ..) from entry `start` on: the way back of [`slice_batch`].
pub(crate) fn unslice_batch(dy: &Tensor, start: usize, batch: usize) -> Tensor {
    let entry = dy.shape()[1..].iter().product::<usize>();
    let mut shape = dy.shape().to_vec();
    shape[0] = batch;
    let mut out = Buffer::zeroed(batch * entry * dy.dtype().size());
    with_element!(dy.dtype(), T => {
        out.as_mut_slice::<T>()[start * entry..][..dy.numel()].copy_from_slice(dy.elements::<T>());
    });
    Tensor::new(out, &shape, dy.dtype())
}

/// A copy of x (B, T, C) with zeros in the rows `rows` of each entry.
pub(crate) fn clear_rows(x: &Tensor, rows: &[usize]) -> Tensor {
    let (entry, width) = (x.dim(1), x.last_dim());
    let mut out = Buffer::uninit(x.numel() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let y = out.as_mut_slice::<T>();
        y.copy_from_slice(x.elements::<T>());
        for row in (0..x.dim(0)).flat_map(|i| rows.iter().map(move |row| i * entry + row)) {
            y[row * width..][..width].fill(T::from_f32(0.0));
        }
    });
    Tensor::new(out, x.shape(), x.dtype())
}

/// Rows `ids` of table (V, C) → (ids, C).
pub(crate) fn take_rows(table: &Tensor, ids: &[u32]) -> Tensor {
    let width = table.last_dim();
    let mut out = Buffer::uninit(ids.len() * width * table.dtype().size());
    with_element!(table.dtype(), T => {
        let table = table.elements::<T>();
        for (y, &id) in out.as_mut_slice::<T>().chunks_exact_mut(width.max(1)).zip(ids) {
            y.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
    Tensor::new(out, &[ids.len(), width], table.dtype())
}

/// Zeros (V, C) with the rows of dy (ids, C) added at `ids`, in order; summed in f32.
pub(crate) fn add_rows(dy: &Tensor, ids: &[u32], rows: usize) -> Tensor {
    let width = dy.last_dim();
    let mut out = Buffer::zeroed(rows * width * DType::F32.size());
    let table = out.as_mut_slice::<f32>();
    with_element!(dy.dtype(), T => {
        for (dy, &id) in dy.elements::<T>().chunks_exact(width.max(1)).zip(ids) {
            for (sum, dy) in table[id as usize * width..][..width].iter_mut().zip(dy) {
                *sum += dy.to_f32();
            }
        }
    });
    let sums = Tensor::new(out, &[rows, width], DType::F32);
    if dy.dtype() == DType::F32 { sums } else { convert(&sums, dy.dtype()) }
}
