//! Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost" (2018), as transformers'
//! `Adafactor` computes it at an absolute learning rate (`scale_parameter=False, relative_step=False`).
//!
//! Of a gradient's squares it keeps the means of rows and columns alone. A tensor is taken as the matrices of its last
//! two axes (a convolution's as many of kh × kw), a vector as it is.

use rayon::prelude::*;

use super::norm::{squared_norm, sum_squares};
use super::{GRAIN, Optimizer, State};

const DECAY_RATE: f64 = -0.8;
/// Added to the squares.
const EPS: f64 = 1e-30;
/// The largest root mean square of a step over the learning rate.
const CLIP_THRESHOLD: f64 = 1.0;
/// Columns that one task adds up.
const BLOCK: usize = 64;

/// Adafactor without a first moment.
#[derive(Debug, Clone, Copy)]
pub struct Adafactor;

impl Optimizer for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn weight_decay(&self) -> f64 {
        0.0
    }

    fn clips(&self) -> bool {
        false
    }

    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        match shape {
            [matrices @ .., rows, columns] => {
                let matrices: usize = matrices.iter().product();
                vec![("exp_avg_sq_row", matrices * rows), ("exp_avg_sq_col", matrices * columns)]
            }
            vector => vec![("exp_avg_sq", vector.iter().product())],
        }
    }

    fn step(&self, state: &mut State, shape: &[usize], grad: &mut [f32], lr: f64) {
        assert_eq!(grad.len(), shape.iter().product::<usize>(), "a gradient for {shape:?}");
        state.step += 1;
        if grad.is_empty() {
            return;
        }
        let beta2 = 1.0 - (state.step as f64).powf(DECAY_RATE);
        match (shape, state.tensors.as_mut_slice()) {
            (&[.., rows, columns], [(_, row), (_, col)]) => {
                assert_eq!([row.len() * columns, col.len() * rows], [grad.len(); 2], "a state for {shape:?}");
                let size = Size { rows, columns };
                size.average_rows(row, grad, beta2);
                size.average_columns(col, grad, beta2);
                size.divide(grad, row, col);
            }
            (_, [(_, exp_avg_sq)]) => {
                assert_eq!(exp_avg_sq.len(), grad.len(), "a state for {shape:?}");
                average_and_divide(grad, exp_avg_sq, beta2);
            }
            _ => panic!("a state that is not Adafactor's for {shape:?}"),
        }
        let rms = (squared_norm(grad) / grad.len() as f64).sqrt();
        let scale = (lr / (rms / CLIP_THRESHOLD).max(1.0)) as f32;
        grad.par_chunks_mut(GRAIN).flatten_iter().for_each(|g| *g *= scale);
    }
}

/// The size of each matrix of a tensor.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    columns: usize,
}

impl Size {
    /// How many pieces of `len` values make a task that is worth its while.
    fn pieces(len: usize) -> usize {
        GRAIN.div_ceil(len)
    }

    /// Brings the mean square of every row into its average.
    fn average_rows(self, averages: &mut [f32], grad: &[f32], beta2: f64) {
        let rows = averages.par_iter_mut().zip(grad.par_chunks(self.columns));
        rows.with_min_len(Self::pieces(self.columns)).for_each(|(average, row)| {
            update(average, sum_squares(row) / self.columns as f64, beta2);
        });
    }

    /// Brings the mean square of every column into its average; each column is added up from the top.
    fn average_columns(self, averages: &mut [f32], grad: &[f32], beta2: f64) {
        let size = self.rows * self.columns;
        let matrices = averages.par_chunks_mut(self.columns).zip(grad.par_chunks(size));
        matrices.with_min_len(Self::pieces(size)).for_each(|(averages, matrix)| {
            averages.par_chunks_mut(BLOCK).enumerate().for_each(|(i, averages)| {
                let mut sums = [0.0; BLOCK];
                for row in matrix.chunks_exact(self.columns) {
                    for (sum, g) in sums.iter_mut().zip(&row[i * BLOCK..][..averages.len()]) {
                        *sum += f64::from(*g) * f64::from(*g);
                    }
                }
                for (average, sum) in averages.iter_mut().zip(sums) {
                    update(average, sum / self.rows as f64, beta2);
                }
            });
        });
    }

    /// g / √(row · col / mean(row)), each matrix by its own averages.
    fn divide(self, grad: &mut [f32], row: &[f32], col: &[f32]) {
        let size = self.rows * self.columns;
        let averages = row.par_chunks(self.rows).zip(col.par_chunks(self.columns));
        let matrices = grad.par_chunks_mut(size).zip(averages).with_min_len(Self::pieces(size));
        matrices.for_each(|(matrix, (row, col))| {
            let mean = row.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rows as f64;
            let rows = matrix.par_chunks_mut(self.columns).zip(row);
            rows.with_min_len(Self::pieces(self.columns)).for_each(|(grad, row)| {
                let row = (mean / f64::from(*row)).sqrt() as f32;
                for (g, col) in grad.iter_mut().zip(col) {
                    *g *= row / col.sqrt();
                }
            });
        });
    }
}

/// A vector's averages are its squares' own.
fn average_and_divide(grad: &mut [f32], averages: &mut [f32], beta2: f64) {
    let pieces = grad.par_chunks_mut(GRAIN).zip(averages.par_chunks_mut(GRAIN));
    pieces.for_each(|(grad, averages)| {
        for (g, average) in grad.iter_mut().zip(averages) {
            update(average, f64::from(*g) * f64::from(*g), beta2);
            *g /= average.sqrt();
        }
    });
}

fn update(average: &mut f32, mean_square: f64, beta2: f64) {
    *average = (beta2 * f64::from(*average) + (1.0 - beta2) * (mean_square + EPS)) as f32;
}
