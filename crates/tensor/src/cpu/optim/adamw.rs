//! AdamW's direction.

use rayon::prelude::*;

use super::norm::GRAIN;
use crate::backend::AdamWArgs;

/// Updates the averages, turns the gradient into a direction, and returns the factor of a step along it.
pub(in crate::cpu) fn adamw(args: &AdamWArgs, averages: [&mut [f32]; 2], grad: &mut [f32]) -> f32 {
    let AdamWArgs { beta1, beta2, eps, step, lr } = *args;
    let bias = |beta: f64| 1.0 - beta.powf(step as f64);
    let root = bias(beta2).sqrt() as f32;
    let [exp_avg, exp_avg_sq] = averages;
    let averages = exp_avg.par_chunks_mut(GRAIN).zip(exp_avg_sq.par_chunks_mut(GRAIN));
    grad.par_chunks_mut(GRAIN).zip(averages).for_each(|(grad, (m, v))| {
        for ((g, m), v) in grad.iter_mut().zip(m).zip(v) {
            *m += (1.0 - beta1) as f32 * (*g - *m);
            *v = beta2 as f32 * *v + (1.0 - beta2) as f32 * *g * *g;
            *g = *m / (v.sqrt() / root + eps);
        }
    });
    (lr / bias(beta1)) as f32
}
