//! Low-rank adaptation of a linear layer. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

use std::sync::{Arc, PoisonError, RwLock};

use calotype_tensor::ops::{self, Activation};
use calotype_tensor::{Tensor, Weight};

/// A tensor that training changes, shared by the layer that uses it and the trainer. Cloning shares it.
#[derive(Clone)]
pub struct Parameter(Arc<RwLock<Tensor>>);

impl Parameter {
    /// A parameter with a first value, f32.
    pub fn new(value: Tensor) -> Self {
        Self(Arc::new(RwLock::new(value.var())))
    }

    /// One that does not train.
    pub fn fixed(value: Tensor) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The present value: a leaf of the tape.
    pub fn get(&self) -> Tensor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts it on the tape, as a new leaf, or takes it off, where nothing is to be remembered for a way back.
    pub fn record(&self, on: bool) {
        let mut value = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *value = if on { value.clone().var() } else { value.detach() };
    }

    /// Takes an optimizer's step: p becomes p · keep − step. It is a new leaf then.
    pub fn step(&self, keep: f32, step: &[f32]) {
        let value = self.get();
        let values = value.f32s().iter().zip(step).map(|(p, step)| p * keep - step).collect();
        self.set(Tensor::from_vec(values, value.shape()));
    }

    /// Gives it another value, and makes it a new leaf.
    pub fn set(&self, value: Tensor) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.var();
    }
}

/// `up(down(x))`, added to what a linear layer gives.
#[derive(Clone)]
pub struct Lora {
    /// (rank, in), f32.
    pub down: Parameter,
    /// (out, rank), f32.
    pub up: Parameter,
}

impl Lora {
    /// x (.., in), base (.., out) → base + up(down(x)).
    pub fn add_to(&self, base: &Tensor, x: &Tensor) -> Tensor {
        let (down, up) = (Weight::from_tensor(&self.down.get()), Weight::from_tensor(&self.up.get()));
        let h = ops::linear(x, &down, None, Activation::None, None); // (.., rank)
        ops::linear(&h, &up, None, Activation::None, Some(base))
    }
}
