//! LoKr: ΔW = (alpha / rank) · w1 ⊗ w2, Kronecker's product, where each factor may be of low rank itself
//! (Yeh et al. 2023, <https://arxiv.org/abs/2309.14859>).

use calotype_tensor::Tensor;

use super::matrix::decomposed;

/// A difference that is Kronecker's product of a small matrix and a larger one.
#[derive(Clone, Debug)]
pub struct Kronecker {
    /// The small factor: a matrix.
    pub first: Factor,
    /// The larger factor: a matrix, or for a convolution the kernels (out, in, k, k).
    pub second: Factor,
    /// alpha / rank, or 1 where neither factor is of low rank.
    pub scale: f64,
}

/// One factor of Kronecker's product.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The numbers of its rows, columns, and kernel positions.
    pub size: [usize; 3],
    /// How it is stored.
    pub form: FactorForm,
}

/// How a factor is stored.
#[derive(Clone, Debug)]
pub enum FactorForm {
    /// As it is.
    Whole(Tensor),
    /// As a · b, or with Tucker's core (rank, rank, k, k) between them.
    LowRank {
        /// (rows, rank), or with a core (rank, rows).
        a: Tensor,
        /// (rank, columns · k · k), or with a core (rank, columns).
        b: Tensor,
        /// Tucker's core.
        core: Option<Tensor>,
    },
}

impl Factor {
    fn values(&self) -> Vec<f32> {
        match &self.form {
            FactorForm::Whole(tensor) => tensor.to_vec(),
            FactorForm::LowRank { a, b, core } => decomposed(a, b, core.as_ref()),
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        match &self.form {
            FactorForm::Whole(tensor) => vec![tensor],
            FactorForm::LowRank { a, b, core } => [a, b].into_iter().chain(core).collect(),
        }
    }
}

impl Kronecker {
    /// ΔW without its scale: element (a · rows + p, b · columns + r, tap) is first[a, b] · second[p, r, tap].
    pub(super) fn product(&self) -> Vec<f32> {
        let ([outer_rows, outer, _], [rows, columns, taps]) = (self.first.size, self.second.size);
        let (first, second) = (self.first.values(), self.second.values());
        let mut values = Vec::with_capacity(outer_rows * rows * outer * columns * taps);
        for row in 0..outer_rows * rows {
            let inner = &second[row % rows * columns * taps..][..columns * taps];
            for x in &first[row / rows * outer..][..outer] {
                values.extend(inner.iter().map(|y| x * y));
            }
        }
        values
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        [self.first.tensors(), self.second.tensors()].concat()
    }
}
