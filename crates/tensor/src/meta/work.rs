//! Amounts of work, by kind, and the counter of a thread.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Mul};

/// Kinds of work. Each has its own speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// FLOPs of matrix products (2 per multiply-add), and of convolutions that are computed as products.
    Product,
    /// FLOPs of products with a matrix that has less than [`NARROW`] rows or columns, as LoRA's have.
    NarrowProduct,
    /// FLOPs of 3 × 3 convolutions by Winograd's algorithm, counted as for a direct computation.
    Winograd,
    /// FLOPs of the gradients of weights.
    WeightGradient,
    /// FLOPs of attention without its projections.
    Attention,
    /// FLOPs of attention's backward pass.
    AttentionBackward,
    /// Values that all other kernels read and write: norms, activations, sums, copies.
    Values,
    /// Values of weights that products read.
    Weights,
    /// Calls of kernels.
    Calls,
}

impl WorkKind {
    /// The number of kinds.
    pub const COUNT: usize = 9;
}

/// The rows and columns of a matrix below which a product with it is a [`WorkKind::NarrowProduct`].
pub const NARROW: usize = 64;

/// The amount of each kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work([f64; WorkKind::COUNT]);

impl Work {
    /// The amount of one kind.
    pub fn of(&self, kind: WorkKind) -> f64 {
        self.0[kind as usize]
    }

    /// The FLOPs of all kinds together.
    pub fn flops(&self) -> f64 {
        self.0[..WorkKind::Values as usize].iter().sum()
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        *self = *self + other;
    }
}

impl Mul<f64> for Work {
    type Output = Work;
    fn mul(self, factor: f64) -> Work {
        Work(self.0.map(|amount| amount * factor))
    }
}

thread_local! {
    /// What this thread has counted.
    static WORK: Cell<Work> = const { Cell::new(Work([0.0; WorkKind::COUNT])) };
}

/// Counts an amount of work.
pub(super) fn add(kind: WorkKind, amount: f64) {
    let mut work = WORK.get();
    work.0[kind as usize] += amount;
    WORK.set(work);
}

/// The result of `f`, and the work that `f` counted.
pub(super) fn counted<R>(f: impl FnOnce() -> R) -> (R, Work) {
    let before = WORK.replace(Work::default());
    let result = f();
    let work = WORK.get();
    WORK.set(before + work);
    (result, work)
}
