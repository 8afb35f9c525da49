//! Optimizers: from a gradient to the step that a parameter takes, one file an optimizer.
//!
//! To add one, write its file and add its row to [`ALL`].

mod adafactor;
mod adamw;
mod norm;
#[cfg(test)]
mod tests;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
pub use norm::{clip_factor, squared_norm};

use calotype_sdxl::ArgumentError;

/// Values that one task takes at once. Sums are of pieces this long, so it is part of the results.
const GRAIN: usize = 1 << 14;

/// A rule for steps. It never sees a parameter, which may lie in any layout, only gradients: a step is made of the
/// gradient, in the layout of the checkpoint, and goes where the gradient came from.
pub trait Optimizer: Send + Sync {
    /// What requests call it.
    fn name(&self) -> &'static str;

    /// The decay of networks' weights under it, for [`step`](Self::step).
    fn weight_decay(&self) -> f64;

    /// Whether gradients are clipped together by their norm first. Where they are not, each can be used and dropped as soon as it
    /// is known.
    fn clips(&self) -> bool;

    /// What is remembered of a parameter, by PyTorch's names, each with how many values it has.
    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, usize)>;
    /// The state of a new parameter.
    fn state(&self, shape: &[usize]) -> OptimizerState {
        let zeros = |(name, count)| (name, vec![0.0; count]);
        OptimizerState { step: 0, tensors: self.averages(shape).into_iter().map(zeros).collect() }
    }

    /// In place: `grad`, row-major of this shape, becomes the direction d; with the factor f that is given back the parameter
    /// becomes p · (1 − lr · decay) − f · d.
    ///
    /// # Panics
    /// If `state` or `grad` is not of this shape.
    fn step(&self, state: &mut OptimizerState, shape: &[usize], grad: &mut [f32], lr: f64) -> f32;
}

/// What an optimizer remembers of a parameter: all of it goes into a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Steps taken.
    pub step: u64,
    /// Averages, by PyTorch's names.
    pub tensors: Vec<(&'static str, Vec<f32>)>,
}

/// The optimizers there are.
pub const ALL: &[&dyn Optimizer] = &[&AdamW, &Adafactor];

/// The optimizer of this wire name.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static dyn Optimizer, ArgumentError> {
    let found = ALL.iter().find(|optimizer| optimizer.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|optimizer| optimizer.name()).collect();
        ArgumentError::new("optimizer", format!("one of {}", names.join(", ")), format!("{name:?}"))
    })
}
