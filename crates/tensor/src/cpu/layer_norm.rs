//! Layer normalisation over the last dimension, forward and backward.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::{from_slice, to_vec, with_element};
use super::isa::{isa, simd_fn};
use super::math::Element;
use super::reduce::{rows_per_run, sum_of, sum_rows, sums_of_pairs, to_f32};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Mean and 1 / √(variance + eps) of a row.
type Moments = [f32; 2];

simd_fn! {
    fn forward_run<T: Element>(
        x: &[T], y: &mut [T], weight: &[f32], bias: &[f32], eps: f32, moments: &mut [Moments],
    ) {
        let width = weight.len();
        let bias = &bias[..width];
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((x, y), moments) in rows.zip(moments) {
            let mean = sum_of(x, |x| x) / width as f32;
            // The row is in the first cache by now, so a second pass costs little and keeps all digits.
            let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width as f32;
            let rstd = 1.0 / (variance + eps).sqrt();
            *moments = [mean, rstd];
            for c in 0..width {
                y[c] = T::from_f32((x[c].to_f32() - mean) * rstd * weight[c] + bias[c]);
            }
        }
    }
}

simd_fn! {
    /// dx = rstd (w dy − mean(w dy) − x̂ mean(w dy x̂)); adds dy x̂ to `dweight` and dy to `dbias`.
    fn backward_run<T: Element>(
        x: &[T], dy: &[T], dx: &mut [T], weight: &[f32], moments: &[Moments],
        dweight: &mut [f32], dbias: &mut [f32], scratch: &mut [f32],
    ) {
        let width = weight.len();
        let (dweight, dbias) = (&mut dweight[..width], &mut dbias[..width]);
        let dz = &mut scratch[..width];
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, dy), dx), &[mean, rstd]) in rows.zip(moments) {
            for c in 0..width {
                let dy = dy[c].to_f32();
                dz[c] = dy * weight[c];
                dweight[c] += dy * ((x[c].to_f32() - mean) * rstd);
                dbias[c] += dy;
            }
            let (sum, product) = sums_of_pairs(x, dz, |x, dz| (dz, dz * ((x - mean) * rstd)));
            let (sum, product) = (sum / width as f32, product / width as f32);
            for c in 0..width {
                let normal = (x[c].to_f32() - mean) * rstd;
                dx[c] = T::from_f32(rstd * (dz[c] - sum - normal * product));
            }
        }
    }
}

/// The normalised x (.., C), and the moments of its rows, (rows, 2).
pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> [Tensor; 2] {
    let width = x.last_dim();
    let (weight, bias) = (&to_vec(weight)[..width], &to_vec(bias)[..width]);
    let rows = rows_per_run(width);
    let mut moments = Buffer::uninit(x.numel() / width * size_of::<Moments>());
    let mut out = Buffer::uninit(x.numel() * x.dtype().size());
    with_element!(x.dtype(), T => {
        let y = out.as_mut_slice::<T>().par_chunks_mut(rows * width);
        let runs = y.zip(x.elements::<T>().par_chunks(rows * width)).zip(moments.as_mut_slice::<Moments>().par_chunks_mut(rows));
        runs.for_each(|((y, x), moments)| forward_run(isa(), x, y, weight, bias, eps, moments));
    });
    let moments = Tensor::new(moments, &[x.numel() / width, 2], DType::F32);
    [Tensor::new(out, x.shape(), x.dtype()), moments]
}

/// The gradients of x, weight and bias.
pub(super) fn backward(x: &Tensor, weight: &Tensor, moments: &Tensor, dy: &Tensor) -> [Tensor; 3] {
    assert_eq!((x.shape(), x.dtype()), (dy.shape(), dy.dtype()));
    let width = x.last_dim();
    let (weight, moments) = (&to_vec(weight)[..width], moments.f32s().as_chunks::<2>().0);
    let rows = rows_per_run(width);
    let mut out = Buffer::uninit(x.numel() * x.dtype().size());
    let partial: Vec<(Vec<f32>, Vec<f32>)> = with_element!(x.dtype(), T => {
        let dx = out.as_mut_slice::<T>().par_chunks_mut(rows * width);
        let inputs = x.elements::<T>().par_chunks(rows * width).zip(dy.elements::<T>().par_chunks(rows * width));
        let runs = dx.zip(inputs).zip(moments.par_chunks(rows)).map(|((dx, (x, dy)), moments)| {
            let (mut dw, mut db, mut scratch) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
            backward_run(isa(), x, dy, dx, weight, moments, &mut dw, &mut db, &mut scratch);
            (dw, db)
        });
        runs.collect()
    });
    let dweight = sum_rows(partial.iter().map(|run| run.0.as_slice()), width);
    let dbias = sum_rows(partial.iter().map(|run| run.1.as_slice()), width);
    let [dweight, dbias] = [dweight, dbias].map(|sums| from_slice(&to_f32(&sums), &[width]));
    [Tensor::new(out, x.shape(), x.dtype()), dweight, dbias]
}
