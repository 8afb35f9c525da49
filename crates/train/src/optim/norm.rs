//! The norm of gradients, and clipping by it. Every sum has one order, whatever the number of threads.

use rayon::prelude::*;

use super::GRAIN;

/// Σ x². The squares of several tensors may be added up to the square of their norm together.
pub fn squared_norm(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values.par_chunks(GRAIN).map(sum_squares).collect();
    sums.iter().sum()
}

/// What gradients of this norm are multiplied by, so that it becomes `max` at most: torch's `clip_grad_norm_`. A norm
/// that is NaN gives NaN.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).clamp(0.0, 1.0)
}

/// Σ x² by one task, in eight sums that take turns, which is quicker than one.
pub(super) fn sum_squares(values: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let mut sums = [0.0; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += square(*x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| square(*x)).sum::<f64>()
}
