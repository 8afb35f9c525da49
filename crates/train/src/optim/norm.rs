//! The norm of gradients, and clipping by the norm. The order of each sum does not depend on the number of threads.

use rayon::prelude::*;

use super::GRAIN;

/// Σ x². The squared norm of several tensors together is the sum of theirs.
pub fn squared_norm(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values.par_chunks(GRAIN).map(sum_squares).collect();
    sums.iter().sum()
}

/// The factor that reduces gradients of norm `norm` to a norm of at most `max`, as torch's `clip_grad_norm_` computes it. A
/// norm that is NaN gives NaN.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).clamp(0.0, 1.0)
}

/// Σ x² in one task. Eight alternating sums are faster than one.
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
