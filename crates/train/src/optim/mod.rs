//! Optimizers, one in each file. An optimizer turns a gradient into a parameter's step.
//!
//! To add one, write its file and add it to [`ALL`].

mod adafactor;
mod adamw;
mod norm;
#[cfg(test)]
mod tests;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
pub use norm::clip_factor;

use calotype_sdxl::ArgumentError;
use calotype_tensor::{Device, Tensor};

/// A rule for steps. It does not see parameters, which may have any layout, but gradients in the checkpoint's layout. It turns
/// a gradient into a step in place.
pub trait Optimizer: Send + Sync {
    /// The name in requests.
    fn name(&self) -> &'static str;

    /// The weight decay that networks' weights have with this optimizer, for [`step`](Self::step).
    fn weight_decay(&self) -> f64;

    /// Whether gradients are first clipped together by their norm. If not, each gradient can be applied and dropped as soon as
    /// it is known.
    fn clips(&self) -> bool;

    /// The state's tensors for a parameter of this shape: PyTorch's name, and the tensor's shape.
    fn averages(&self, shape: &[usize]) -> Vec<(&'static str, Vec<usize>)>;

    /// The initial state of a parameter on this device.
    fn state(&self, shape: &[usize], device: Device) -> OptimizerState {
        let zeros = |(name, shape): (_, Vec<usize>)| (name, device.kept_zeros(&shape));
        OptimizerState { step: 0, tensors: self.averages(shape).into_iter().map(zeros).collect() }
    }

    /// Turns `grad`, f32, into the direction d in place, and returns a factor f, (). The parameter p then becomes
    /// p · (1 − lr · decay) − f · d.
    ///
    /// # Panics
    /// If `state` is not one for the shape of `grad`.
    fn step(&self, state: &mut OptimizerState, grad: &mut Tensor, lr: f64) -> Tensor;
}

/// An optimizer's state of a parameter. A checkpoint contains all of it.
#[derive(Debug)]
pub struct OptimizerState {
    /// Steps taken.
    pub step: u64,
    /// Averages, f32, by PyTorch's names.
    pub tensors: Vec<(&'static str, Tensor)>,
}

/// All optimizers.
pub const ALL: &[&dyn Optimizer] = &[&AdamW, &Adafactor];

/// The optimizer with this name in requests.
///
/// # Errors
/// No optimizer has this name. The error lists the available names.
pub fn find(name: &str) -> Result<&'static dyn Optimizer, ArgumentError> {
    let found = ALL.iter().find(|optimizer| optimizer.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|optimizer| optimizer.name()).collect();
        ArgumentError::new("optimizer", format!("one of {}", names.join(", ")), format!("{name:?}"))
    })
}
