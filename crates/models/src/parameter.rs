//! What training changes.

use std::sync::{Arc, PoisonError, RwLock};

use calotype_tensor::{LeafId, Tensor, Weight};

/// A layer's tensor, or its weight in the kernels' layout, shared by the layer that uses it and the trainer. Cloning
/// shares it.
#[derive(Clone)]
pub struct Parameter<T = Tensor>(Arc<RwLock<T>>);

impl<T: Clone> Parameter<T> {
    /// One that does not train, unless its value is on the tape.
    pub fn fixed(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The present value: where it trains, a leaf of the tape.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it another value.
    pub fn replace(&self, value: T) {
        self.change(|old| *old = value);
    }

    fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Parameter {
    /// One that trains, with its first values, f32.
    pub fn new(value: Tensor) -> Self {
        Self::fixed(value.var())
    }
}

impl Parameter<Weight> {
    /// One that trains, with its first values, in f32 panels.
    pub fn new(value: Weight) -> Self {
        Self::fixed(value.var())
    }
}

/// A parameter as a trainer sees it: row-major f32 values, wherever they lie.
pub trait Trainable: Send + Sync {
    /// The leaf that the parameter's gradient belongs to; none where the parameter is not on the tape. A change may give it another.
    fn leaf_id(&self) -> Option<LeafId>;
    /// Puts the parameter on the tape, or takes it off: ops then remember nothing for its gradient.
    fn record(&self, on: bool);
    /// The parameter's values, which may be a copy.
    fn values(&self) -> Tensor;
    /// Gives the parameter other values, as many as it has.
    fn set_values(&self, values: &[f32]);
    /// Takes an optimizer's step: each value p becomes p · keep − factor · d, where d is the direction's value at the same place.
    fn step(&self, keep: f32, factor: f32, direction: &[f32]);
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
        self.change(|value| *value = Tensor::from_slice(values, value.shape()).var());
    }

    fn step(&self, keep: f32, factor: f32, direction: &[f32]) {
        self.change(|value| {
            value.f32s_mut().iter_mut().zip(direction).for_each(|(p, d)| *p = *p * keep - factor * d);
        });
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

    fn step(&self, keep: f32, factor: f32, direction: &[f32]) {
        self.change(|value| value.step(keep, factor, direction));
    }
}
