//! The gradients of a step: added up until the step is taken, or used up as soon as they are known.

use std::collections::HashMap;

use calotype_tensor::{LeafId, Tensor};

use super::trained::TrainedParameter;
use crate::optim;

/// The gradients of a step.
pub(super) struct StepGradients {
    /// Whose gradient each leaf's is.
    of_leaf: HashMap<LeafId, usize>,
    /// Parameters that are not trained in this step, or that take their step at once, have no sum.
    sums: Vec<Option<Vec<f32>>>,
    /// Whether all but the embeddings take their step at once: then there is one gradient of theirs at a time.
    at_once: bool,
    /// Of the gradients that were used up, by parameter: the order in which gradients come depends on what is computed again, and
    /// the sum of these must not.
    squared_norms: Vec<f64>,
}

impl StepGradients {
    /// Zeros: a parameter that a batch does not touch (embeddings without their token) has a gradient all the same.
    pub(super) fn new(trained: &[TrainedParameter], embeddings_train: bool, at_once: bool) -> Self {
        let summed = |t: &TrainedParameter| if t.is_embedding { embeddings_train } else { !at_once };
        let leaf = |(i, t): (usize, &TrainedParameter)| t.parameter.leaf_id().map(|leaf| (leaf, i));
        Self {
            of_leaf: trained.iter().enumerate().filter_map(leaf).collect(),
            sums: trained.iter().map(|t| summed(t).then(|| vec![0.0; t.count()])).collect(),
            at_once,
            squared_norms: vec![0.0; trained.len()],
        }
    }

    /// Takes a leaf's gradient in. A parameter that takes its step at once does so at `lr`, unless an earlier gradient was not a number.
    pub(super) fn take(
        &mut self,
        trained: &mut [TrainedParameter],
        leaf: LeafId,
        mut gradient: Tensor,
        lr: f64,
    ) {
        let Some(&i) = self.of_leaf.get(&leaf) else { return };
        if let Some(sum) = &mut self.sums[i] {
            sum.iter_mut().zip(gradient.f32s()).for_each(|(sum, g)| *sum += g);
        } else if self.at_once && !trained[i].is_embedding {
            self.squared_norms[i] = optim::squared_norm(gradient.f32s());
            if self.squared_norms.iter().all(|square| square.is_finite()) {
                trained[i].update(gradient.f32s_mut(), 1.0, lr);
            }
        }
    }

    /// Of all gradients together.
    pub(super) fn norm(&self) -> f64 {
        let summed: f64 = self.sums.iter().flatten().map(|sum| optim::squared_norm(sum)).sum();
        let used_up: f64 = self.squared_norms.iter().sum();
        (used_up + summed).sqrt()
    }

    /// The sums, in the order of the parameters.
    pub(super) fn into_sums(self) -> Vec<Option<Vec<f32>>> {
        self.sums
    }
}
