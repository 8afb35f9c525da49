//! What trains, each with its optimizer.

use std::sync::Arc;

use super::text::Text;
use crate::adapters::{FullTensors, LoraLayers};
use crate::nn::{Parameter, Trainable};
use crate::optim::{self, AdamW, Optimizer};

/// Weight decay of the new tokens' embeddings.
const ROWS_DECAY: f64 = 1e-3;

/// A parameter and its optimizer.
pub(super) struct Trained {
    /// As the result's files name it.
    pub(super) name: String,
    /// As they have it.
    pub(super) shape: Vec<usize>,
    pub(super) parameter: Arc<dyn Trainable>,
    pub(super) state: optim::State,
    /// Whether it is the new tokens' embeddings.
    pub(super) rows: bool,
    optimizer: &'static dyn Optimizer,
}

/// Every parameter, in a fixed order.
pub(super) fn all(
    lora: Option<&LoraLayers>,
    full: Option<&FullTensors>,
    text: &Text,
    optimizer: &'static dyn Optimizer,
) -> Vec<Trained> {
    let mut all = Vec::new();
    for (path, lora) in lora.map(LoraLayers::layers).unwrap_or_default() {
        all.push(Trained::tensor(format!("{path}.down"), lora.down, optimizer));
        all.push(Trained::tensor(format!("{path}.up"), lora.up, optimizer));
    }
    for (key, tensor) in full.map(FullTensors::tensors).unwrap_or_default() {
        all.push(Trained::new(key, tensor.shape, tensor.parameter, optimizer));
    }
    for (i, rows) in text.rows().enumerate() {
        let rows = Trained::tensor(format!("text_encoders_{i}"), rows.clone(), &AdamW);
        all.push(Trained { rows: true, ..rows });
    }
    all
}

impl Trained {
    fn new(
        name: String,
        shape: Vec<usize>,
        parameter: Arc<dyn Trainable>,
        optimizer: &'static dyn Optimizer,
    ) -> Self {
        Self { state: optimizer.state(&shape), name, shape, parameter, rows: false, optimizer }
    }

    fn tensor(name: String, parameter: Parameter, optimizer: &'static dyn Optimizer) -> Self {
        Self::new(name, parameter.get().shape().to_vec(), Arc::new(parameter), optimizer)
    }

    /// How many values it has.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Takes a step by this gradient, times `clip`, which is used up.
    pub(super) fn update(&mut self, gradient: &mut [f32], clip: f32, lr: f64) {
        if clip != 1.0 {
            gradient.iter_mut().for_each(|g| *g *= clip);
        }
        let factor = self.optimizer.step(&mut self.state, &self.shape, gradient, lr);
        let decay = if self.rows { ROWS_DECAY } else { self.optimizer.weight_decay() };
        let keep = (1.0 - lr * decay) as f32;
        self.parameter.step(keep, factor, gradient);
    }
}
