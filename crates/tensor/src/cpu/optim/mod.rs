//! The kernels of optimizers, on gradients, averages and parameters. The order of each sum does not depend on the number of threads.

mod adafactor;
mod adamw;
mod norm;

pub(super) use adafactor::adafactor;
pub(super) use adamw::adamw;
pub(super) use norm::squared_norm;

use norm::GRAIN;
use rayon::prelude::*;

/// sum becomes sum + x.
pub(super) fn add_to(sum: &mut [f32], x: &[f32]) {
    let pieces = sum.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN));
    pieces.for_each(|(sum, x)| sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x));
}

/// Each p becomes p · keep − factor · d.
pub(super) fn step(p: &mut [f32], keep: f32, factor: f32, direction: &[f32]) {
    let pieces = p.par_chunks_mut(GRAIN).zip(direction.par_chunks(GRAIN));
    pieces.for_each(|(p, d)| p.iter_mut().zip(d).for_each(|(p, d)| *p = *p * keep - factor * d));
}
