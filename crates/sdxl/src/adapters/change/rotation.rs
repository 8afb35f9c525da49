//! OFT: W' = Rᵀ · W, where R is orthogonal and block-diagonal: each block is (I + Q)(I − Q)⁻¹ with Q = B − Bᵀ
//! (Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>). BOFT: W' = R_m ⋯ R₁ · W, each R with its rows in an order of its own
//! (Liu et al. 2023, <https://arxiv.org/abs/2311.06243>).

use calotype_tensor::Tensor;

use super::matrix::product;
use crate::channels_last::transposed;

/// Rotations of a layer's outputs in blocks.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// B: (blocks, size, size); or for BOFT (stages, blocks, size, size).
    pub blocks: Tensor,
    /// A factor for each output.
    pub rescale: Option<Tensor>,
    /// The largest norm of all Q together. 0: there is no limit.
    pub constraint: f64,
}

impl Rotation {
    /// `scale` of the way from `weight` (out, n) to the rotated weight, each stage of BOFT so far; then the outputs' factors, which
    /// no scale weakens, as in LyCORIS.
    pub(super) fn difference(&self, weight: &[f32], scale: f64) -> Vec<f32> {
        let size = self.blocks.last_dim();
        let blocks = self.blocks.numel() / (size * size * self.stages());
        let parts = self.rotations().into_iter().enumerate().map(|(at, r)| {
            (f64::from(r) * scale + (1.0 - scale) * identity(at % (size * size), size)) as f32
        });
        let rotations: Vec<f32> = parts.collect();
        let rotated = match self.blocks.shape().len() {
            4 => butterfly(weight, &rotations, blocks, size),
            _ => {
                let inverse = rotations.chunks(size * size).flat_map(|block| transposed(block, size, size));
                by_blocks(weight, &inverse.collect::<Vec<_>>(), blocks, size)
            }
        };
        let inner = weight.len() / (blocks * size);
        let factor = |at: usize| self.rescale.as_ref().map_or(1.0, |rescale| rescale.f32s()[at / inner]);
        rotated.iter().zip(weight).enumerate().map(|(at, (new, w))| factor(at) * new - w).collect()
    }

    fn stages(&self) -> usize {
        if self.blocks.shape().len() == 4 { self.blocks.dim(0) } else { 1 }
    }

    /// Every block's (I + Q)(I − Q)⁻¹, row-major.
    fn rotations(&self) -> Vec<f32> {
        let size = self.blocks.last_dim();
        let skew = |block: &[f32]| {
            let at = |i: usize| f64::from(block[i]) - f64::from(block[i % size * size + i / size]);
            (0..size * size).map(at).collect::<Vec<f64>>()
        };
        let mut all: Vec<f64> = self.blocks.f32s().chunks(size * size).flat_map(skew).collect();
        let norm = all.iter().map(|q| q * q).sum::<f64>().sqrt() + 1e-8;
        if self.constraint > 0.0 && norm > self.constraint {
            all.iter_mut().for_each(|q| *q *= self.constraint / norm);
        }
        all.chunks(size * size).flat_map(|q| cayley(q, size)).collect()
    }
}

/// Element `at` of the identity matrix.
fn identity(at: usize, size: usize) -> f64 {
    if at.is_multiple_of(size + 1) { 1.0 } else { 0.0 }
}

/// (I + Q)(I − Q)⁻¹ of a skew-symmetric Q, as the solution X of X (I − Q) = I + Q. Transposed, that is (I + Q) Xᵀ = I − Q.
/// I + Q is never singular.
fn cayley(q: &[f64], size: usize) -> Vec<f32> {
    let mut left: Vec<f64> = q.iter().enumerate().map(|(i, q)| identity(i, size) + q).collect();
    let mut right: Vec<f64> = q.iter().enumerate().map(|(i, q)| identity(i, size) - q).collect();
    for pivot in 0..size {
        let magnitude = |row: &usize| left[row * size + pivot].abs();
        let best = (pivot..size).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b))).unwrap_or(pivot);
        for column in 0..size {
            left.swap(pivot * size + column, best * size + column);
            right.swap(pivot * size + column, best * size + column);
        }
        let divisor = left[pivot * size + pivot];
        for matrix in [&mut left, &mut right] {
            matrix[pivot * size..][..size].iter_mut().for_each(|x| *x /= divisor);
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = left[row * size + pivot];
            for matrix in [&mut left, &mut right] {
                for column in 0..size {
                    matrix[row * size + column] -= factor * matrix[pivot * size + column];
                }
            }
        }
    }
    transposed(&right.iter().map(|x| *x as f32).collect::<Vec<_>>(), size, size)
}

/// Each block (size, size) times its rows of `weight`.
fn by_blocks(weight: &[f32], matrices: &[f32], blocks: usize, size: usize) -> Vec<f32> {
    let rows = weight.len() / blocks;
    let matrix = |block: &[f32]| Tensor::from_slice(block, &[size, size]);
    let part = |part: &[f32]| Tensor::from_slice(part, &[size, rows / size]);
    let pairs = matrices.chunks(size * size).zip(weight.chunks(rows));
    pairs.flat_map(|(m, w)| product(&matrix(m), &part(w))).collect()
}

/// BOFT's stages. Stage i brings rows of 2^i · size / 2 apart together.
fn butterfly(weight: &[f32], rotations: &[f32], blocks: usize, size: usize) -> Vec<f32> {
    let rows = blocks * size;
    let inner = weight.len() / rows;
    let mut now = weight.to_vec();
    for (stage, matrices) in rotations.chunks(rows * size).enumerate() {
        let half = (1 << stage) * (size / 2);
        // The row at (c, k, g) of the stage's order is the row (c, g, k).
        let from = |row: usize| {
            let (c, k, g) = (row / (2 * half), row / 2 % half, row % 2);
            c * 2 * half + g * half + k
        };
        let gathered: Vec<f32> =
            (0..rows).flat_map(|row| now[from(row) * inner..][..inner].to_vec()).collect();
        let turned = by_blocks(&gathered, matrices, blocks, size);
        for row in 0..rows {
            now[from(row) * inner..][..inner].copy_from_slice(&turned[row * inner..][..inner]);
        }
    }
    now
}
