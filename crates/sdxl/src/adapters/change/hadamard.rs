//! LoHa: ΔW = (alpha / rank) · (w1_a · w1_b) ⊙ (w2_a · w2_b), the products element by element
//! (Hyeon-Woo et al. 2021, <https://arxiv.org/abs/2108.06098>).

use calotype_tensor::Tensor;

use super::matrix::decomposed;

/// A difference that is a product of two matrices element by element, each of low rank.
#[derive(Clone, Debug)]
pub struct Hadamard {
    /// (out, rank), or with a core (rank, out).
    pub a: [Tensor; 2],
    /// (rank, in · k · k), or with a core (rank, in).
    pub b: [Tensor; 2],
    /// Tucker's cores of a convolution, (rank, rank, k, k).
    pub cores: Option<[Tensor; 2]>,
    /// alpha / rank.
    pub scale: f64,
}

impl Hadamard {
    /// ΔW without its scale, (out, in · k · k).
    pub(super) fn product(&self) -> Vec<f32> {
        let core = |i: usize| self.cores.as_ref().map(|cores| &cores[i]);
        let [first, second] = [0, 1].map(|i| decomposed(&self.a[i], &self.b[i], core(i)));
        first.into_iter().zip(second).map(|(x, y)| x * y).collect()
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        self.a.iter().chain(&self.b).chain(self.cores.iter().flatten()).collect()
    }
}
