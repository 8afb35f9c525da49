//! Sums in a fixed order: the same bytes whatever the number of threads and the instruction set.
//!
//! Work is cut into runs of a fixed size, never by the number of threads, and the results of
//! the runs are combined in order. Inside a run, element i goes to accumulator i modulo [`LANES`].

use rayon::prelude::*;

use super::elementwise::{self, with_element};
use super::isa::{isa, simd_fn};
use super::math::Element;
use crate::tensor::Tensor;

/// Accumulators of a vectorised sum: four AVX2 registers.
const LANES: usize = 32;

/// Elements of a run: enough to be worth a task, few enough to stay in a core's cache.
const RUN: usize = 1 << 15;

/// How many rows of `width` elements make a run.
pub(crate) fn rows_per_run(width: usize) -> usize {
    let rows = RUN / width.max(1);
    if rows < 4 { rows.max(1) } else { rows / 4 * 4 }
}

#[inline(always)]
fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Σ f(x).
#[inline(always)]
pub(crate) fn sum_of<T: Element>(x: &[T], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane += f(x.to_f32());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += f(x.to_f32());
    }
    fold(lanes)
}

/// Σ f(a, b), two sums at once.
#[inline(always)]
pub(crate) fn sums_of_pairs<A: Element, B: Element>(
    a: &[A],
    b: &[B],
    f: impl Fn(f32, f32) -> (f32, f32),
) -> (f32, f32) {
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            let (p, q) = f(a[i].to_f32(), b[i].to_f32());
            first[i] += p;
            second[i] += q;
        }
    }
    for (i, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        let (p, q) = f(a.to_f32(), b.to_f32());
        first[i] += p;
        second[i] += q;
    }
    (fold(first), fold(second))
}

/// The largest of some numbers, −∞ of none.
#[inline(always)]
pub(crate) fn max_of<T: Element>(x: &[T]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = lane.max(x.to_f32());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = lane.max(x.to_f32());
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

simd_fn! {
    fn sum_slice<T: Element>(x: &[T]) -> f32 {
        sum_of(x, |x| x)
    }
}

/// The sum of all elements, ().
pub(super) fn sum_all(x: &Tensor) -> Tensor {
    let runs: Vec<f32> = with_element!(x.dtype(), T => {
        x.elements::<T>().par_chunks(RUN).map(|run| sum_slice(isa(), run)).collect()
    });
    elementwise::from_slice(&[runs.into_iter().map(f64::from).sum::<f64>() as f32], &[])
}

/// The sum of the rows of each of `groups` equal parts of x (.., C), (groups · C).
pub(super) fn sum_groups(x: &Tensor, groups: usize) -> Vec<f32> {
    if x.numel() == 0 {
        return vec![0.0; groups * x.last_dim()];
    }
    with_element!(x.dtype(), T => {
        let columns = x.last_dim();
        let group = x.numel() / groups;
        let sum_group = |group: &[T]| {
            let chunks = group.par_chunks(SUMMED_ROWS * columns);
            let partial: Vec<_> = chunks.map(|rows| sum_chunk(rows, columns)).collect();
            sum_chunk(&partial.concat(), columns)
        };
        x.elements::<T>().chunks(group).flat_map(sum_group).collect()
    })
}

/// Rows that [`sum_groups`] sums on their own before it sums the partial sums.
const SUMMED_ROWS: usize = 256;

fn sum_chunk<T: Element>(rows: &[T], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for row in rows.chunks_exact(columns) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.to_f32();
        }
    }
    sums
}

/// The sum, column by column, of the rows that the runs gave, in their order.
pub(crate) fn sum_rows<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize) -> Vec<f64> {
    let mut total = vec![0.0; width];
    for row in rows {
        for (total, &x) in total.iter_mut().zip(row) {
            *total += f64::from(x);
        }
    }
    total
}

/// Rounds to f32.
pub(crate) fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}
