//! Products of small matrices, and Tucker's decomposition of a convolution: Δ[p, r, …] = Σ a[i, p] · core[i, j, …] · b[j, r].

use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{Tensor, Weight};

use crate::channels_last::transposed;

/// (m, k) · (k, n) → (m, n). Further dimensions of `b` belong to n.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Vec<f32> {
    let (m, k) = (a.dim(0), b.dim(0));
    let n = b.numel() / k;
    let columns = Weight::from_tensor(&Tensor::from_vec(transposed(b.f32s(), k, n), &[n, k]));
    ops::linear(&a.reshape(&[m, k]), &columns, LinearArgs::default()).to_vec()
}

/// The first half of Tucker's decomposition: `core` (i, j, k, k) and `b` (j, r) → (i, r, k, k).
pub fn fold(core: &Tensor, b: &Tensor) -> Tensor {
    let (i, j, r) = (core.dim(0), core.dim(1), b.dim(1));
    let taps = core.numel() / (i * j);
    let values = core.f32s();
    let turned = (0..core.numel()).map(|n| {
        let (row, tap, column) = (n / (j * taps), n / j % taps, n % j);
        values[(row * j + column) * taps + tap]
    });
    let by_tap = product(&Tensor::from_vec(turned.collect(), &[i * taps, j]), b); // (i · taps, r)
    let back = (0..i * r * taps).map(|n| {
        let (row, column, tap) = (n / (r * taps), n / taps % r, n % taps);
        by_tap[(row * taps + tap) * r + column]
    });
    Tensor::from_vec(back.collect(), &[&[i, r], &core.shape()[2..]].concat())
}

/// Two factors of a difference, with Tucker's core between them for a convolution whose kernel is kept apart: a · b, or
/// Σ a[i, p] · core[i, j, …] · b[j, r].
pub(super) fn decomposed(a: &Tensor, b: &Tensor, core: Option<&Tensor>) -> Vec<f32> {
    match core {
        None => product(a, b),
        Some(core) => {
            let (i, p) = (a.dim(0), a.dim(1));
            product(&Tensor::from_vec(transposed(a.f32s(), i, p), &[p, i]), &fold(core, b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the order of the indices in Tucker's decomposition, against the sum itself.
    #[test]
    fn the_sum_of_tucker() {
        let values = |n: usize| (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>();
        let (rank, out, inputs, taps) = (2, 3, 5, 4);
        let core = Tensor::from_vec(values(rank * rank * taps), &[rank, rank, 2, 2]);
        let a = Tensor::from_vec(values(rank * out), &[rank, out]);
        let b = Tensor::from_vec(values(rank * inputs), &[rank, inputs]);
        let found = decomposed(&a, &b, Some(&core));
        assert_eq!(found.len(), out * inputs * taps);
        for (n, value) in found.into_iter().enumerate() {
            let (p, r, tap) = (n / (inputs * taps), n / taps % inputs, n % taps);
            let term = |i: usize, j: usize| {
                a.f32s()[i * out + p] * core.f32s()[(i * rank + j) * taps + tap] * b.f32s()[j * inputs + r]
            };
            let sum: f32 =
                (0..rank).flat_map(|i| (0..rank).map(move |j| (i, j))).map(|(i, j)| term(i, j)).sum();
            assert_eq!(value, sum);
        }
    }
}
