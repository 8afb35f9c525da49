//! Adafactor's direction, from averages over the rows and columns of a gradient's squares, or over a vector's squares.

use rayon::prelude::*;

use super::norm::{GRAIN, squared_norm, sum_squares};
use crate::backend::{AdafactorArgs, AdafactorAverages};
use crate::tensor::Tensor;

/// The fewest rows whose columns one task adds up.
const ROWS: usize = 64;

/// Updates the averages, turns the gradient into a direction, and returns the factor of a step along it.
pub(in crate::cpu) fn adafactor(args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> f32 {
    let count = grad.numel();
    let squares = match averages {
        AdafactorAverages::Factored { rows, columns } => {
            let [.., height, width] = *grad.shape() else { panic!("a gradient (.., rows, columns)") };
            let size = Size { rows: height, columns: width };
            let (row, col, grad) = (rows.f32s_mut(), columns.f32s_mut(), grad.f32s_mut());
            size.average(row, col, grad, args);
            size.divide(row, col, grad)
        }
        AdafactorAverages::Full(averages) => {
            average_and_divide(grad.f32s_mut(), averages.f32s_mut(), args);
            squared_norm(grad.f32s())
        }
    };
    let rms = (squares / count as f64).sqrt();
    (args.lr / (rms / args.clip_threshold).max(1.0)) as f32
}

/// The size of each matrix of a tensor.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    columns: usize,
}

impl Size {
    /// The number of pieces of `len` values in a task of sufficient size.
    fn pieces(len: usize) -> usize {
        GRAIN.div_ceil(len)
    }

    /// The tasks of a tensor: the averages of their rows, those of their columns, and their matrices. A task has one large
    /// matrix or many small ones.
    fn tasks<'a>(
        self,
        row: &'a mut [f32],
        col: &'a mut [f32],
        grad: &'a mut [f32],
    ) -> impl IndexedParallelIterator<Item = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32])> {
        let size = self.rows * self.columns;
        let matrices = Self::pieces(size);
        let averages =
            row.par_chunks_mut(matrices * self.rows).zip(col.par_chunks_mut(matrices * self.columns));
        averages.zip(grad.par_chunks_mut(matrices * size))
    }

    /// Updates the averages of every row and every column by the mean squares of the gradient.
    fn average(self, row: &mut [f32], col: &mut [f32], grad: &mut [f32], args: &AdafactorArgs) {
        self.tasks(row, col, grad).for_each(|((row, col), grad)| {
            let mut sums = vec![0.0; self.columns];
            let averages = row.chunks_exact_mut(self.rows).zip(col.chunks_exact_mut(self.columns));
            for ((row, col), matrix) in averages.zip(grad.chunks_exact(self.rows * self.columns)) {
                self.average_rows(row, matrix, &mut sums, args);
                for (average, sum) in col.iter_mut().zip(&sums) {
                    update(average, sum / self.rows as f64, args);
                }
            }
        });
    }

    /// Updates the averages of a matrix's rows by their mean squares. Writes the sums of the columns' squares to
    /// `sums`.
    fn average_rows(self, averages: &mut [f32], matrix: &[f32], sums: &mut [f64], args: &AdafactorArgs) {
        let add = |averages: &mut [f32], rows: &[f32], sums: &mut [f64]| {
            for (average, row) in averages.iter_mut().zip(rows.chunks_exact(self.columns)) {
                update(average, sum_squares(row) / self.columns as f64, args);
                for (sum, g) in sums.iter_mut().zip(row) {
                    *sum += f64::from(*g) * f64::from(*g);
                }
            }
        };
        sums.fill(0.0);
        let rows = ROWS.max(Self::pieces(self.columns));
        if self.rows <= rows {
            return add(averages, matrix, sums);
        }
        let parts = averages.par_chunks_mut(rows).zip(matrix.par_chunks(rows * self.columns));
        let parts: Vec<Vec<f64>> = parts
            .map(|(averages, rows)| {
                let mut sums = vec![0.0; self.columns];
                add(averages, rows, &mut sums);
                sums
            })
            .collect();
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }

    /// Computes g / √(row · col / mean(row)), for each matrix with its own averages. Returns Σ g² of the result.
    fn divide(self, row: &mut [f32], col: &mut [f32], grad: &mut [f32]) -> f64 {
        let factor = |average: f64| (1.0 / average.sqrt()) as f32;
        let tasks = self.tasks(row, col, grad).map(|((row, col), grad)| {
            let (mut squares, mut factors) = (0.0, vec![0.0; self.columns]);
            let averages = row.chunks_exact(self.rows).zip(col.chunks_exact(self.columns));
            for ((row, col), matrix) in averages.zip(grad.chunks_exact_mut(self.rows * self.columns)) {
                let mean = row.iter().map(|r| f64::from(*r)).sum::<f64>() / self.rows as f64;
                factors.iter_mut().zip(col).for_each(|(f, col)| *f = factor(f64::from(*col)));
                let divide = |(grad, row): (&mut [f32], &f32)| -> f64 {
                    let row = factor(f64::from(*row) / mean);
                    grad.iter_mut().zip(&factors).for_each(|(g, col)| *g *= row * col);
                    sum_squares(grad)
                };
                squares += if matrix.len() <= GRAIN {
                    matrix.chunks_exact_mut(self.columns).zip(row).map(divide).sum::<f64>()
                } else {
                    let rows = matrix.par_chunks_exact_mut(self.columns).zip(row);
                    let rows: Vec<f64> = rows.with_min_len(Self::pieces(self.columns)).map(divide).collect();
                    rows.iter().sum()
                };
            }
            squares
        });
        let squares: Vec<f64> = tasks.collect();
        squares.iter().sum()
    }
}

/// Updates the averages of a vector's squares, and divides the vector by their square roots.
fn average_and_divide(grad: &mut [f32], averages: &mut [f32], args: &AdafactorArgs) {
    let pieces = grad.par_chunks_mut(GRAIN).zip(averages.par_chunks_mut(GRAIN));
    pieces.for_each(|(grad, averages)| {
        for (g, average) in grad.iter_mut().zip(averages) {
            update(average, f64::from(*g) * f64::from(*g), args);
            *g /= average.sqrt();
        }
    });
}

fn update(average: &mut f32, mean_square: f64, args: &AdafactorArgs) {
    let AdafactorArgs { beta2, eps, .. } = *args;
    *average = (beta2 * f64::from(*average) + (1.0 - beta2) * (mean_square + eps)) as f32;
}
