//! Parameters: tensors and weights that a layer shares with a trainer.

use std::sync::{Arc, PoisonError, RwLock};

use calotype_tensor::{Device, LeafId, Tensor, Weight, ops};

/// A layer's tensor, or weight in the kernels' layout. The layer and a trainer share it; a clone shares it too.
#[derive(Clone)]
pub struct Parameter<T = Tensor>(Arc<RwLock<T>>);

impl<T: Clone> Parameter<T> {
    /// A parameter that is not trained, unless `value` is on the tape.
    pub fn fixed(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The current value. It is a leaf of the tape if the parameter is trained.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is another clone.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Replaces the value.
    pub fn replace(&self, value: T) {
        self.change(|old| *old = value);
    }

    fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Parameter {
    /// A parameter that is trained, with its initial values, in f32.
    pub fn new(value: Tensor) -> Self {
        Self::fixed(value.var())
    }
}

impl Parameter<Weight> {
    /// A parameter that is trained, with its initial values, in f32 panels.
    pub fn new(value: Weight) -> Self {
        Self::fixed(value.var())
    }
}

/// A parameter as a trainer sees it: row-major f32 values, whatever the layout in memory.
pub trait Trainable: Send + Sync {
    /// The leaf that the parameter's gradient belongs to. `None`: the parameter is not on the tape. A change of the value may
    /// change the leaf.
    fn leaf_id(&self) -> Option<LeafId>;
    /// Puts the parameter on the tape or takes it off. Off the tape, ops record nothing for its gradient.
    fn record(&self, on: bool);
    /// The parameter's values; the tensor may be a copy.
    fn values(&self) -> Tensor;
    /// Sets all values of the parameter.
    fn set_values(&self, values: &[f32]);
    /// Where the parameter lies.
    fn device(&self) -> Device;
    /// Takes an optimizer's step: each value p becomes p · keep − factor · d, where d is the value of `direction`, f32, at the
    /// same index, and `factor` is ().
    fn step(&self, keep: f32, factor: &Tensor, direction: &Tensor);
}

impl Trainable for Parameter {
    fn leaf_id(&self) -> Option<LeafId> {
        self.get().leaf_id()
    }

    fn record(&self, on: bool) {
        self.change(|value| *value = if on { value.clone().var() } else { value.detach() });
    }

    fn values(&self) -> Tensor {
        self.get().detach()
    }

    fn set_values(&self, values: &[f32]) {
        self.change(|value| *value = value.device().upload(values, value.shape()).var());
    }

    fn device(&self) -> Device {
        self.get().device()
    }

    fn step(&self, keep: f32, factor: &Tensor, direction: &Tensor) {
        self.change(|value| ops::step(value, keep, factor, &direction.reshape(value.shape())));
    }
}

impl Trainable for Parameter<Weight> {
    fn leaf_id(&self) -> Option<LeafId> {
        self.get().leaf_id()
    }

    fn record(&self, on: bool) {
        self.change(|value| *value = if on { value.clone().var() } else { value.detach() });
    }

    fn values(&self) -> Tensor {
        self.get().values()
    }

    fn set_values(&self, values: &[f32]) {
        self.change(|value| value.set_values(values));
    }

    fn device(&self) -> Device {
        self.get().device()
    }

    fn step(&self, keep: f32, factor: &Tensor, direction: &Tensor) {
        self.change(|value| value.step(keep, factor, direction));
    }
}
