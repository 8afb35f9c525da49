//! The gradients of a step: each is summed until the step, or applied as soon as it is known.

use std::collections::HashMap;

use calotype_tensor::{LeafId, Tensor, ops};

use super::trained::TrainedParameter;

/// The gradients of a step.
pub(super) struct StepGradients {
    /// The index of the parameter that each leaf belongs to.
    of_leaf: HashMap<LeafId, usize>,
    /// The sum of each parameter's gradients. A parameter that is not trained in this step, or is updated at
    /// once, has no sum.
    sums: Vec<Option<Tensor>>,
    /// Whether each parameter other than the embeddings is updated as soon as its gradient is known. Only one of
    /// their gradients is then in memory.
    at_once: bool,
    /// The squared norms of the gradients that were applied at once, by parameter. They are added up in the order of the
    /// parameters, because the order in which gradients arrive depends on recomputation.
    squared_norms: Vec<f64>,
}

impl StepGradients {
    /// Begins with zeros. A parameter that a batch does not use (embeddings whose token is absent) has a zero gradient.
    pub(super) fn new(trained: &[TrainedParameter], embeddings_train: bool, at_once: bool) -> Self {
        let summed = |t: &TrainedParameter| if t.is_embedding { embeddings_train } else { !at_once };
        let zeros = |t: &TrainedParameter| t.parameter.device().kept_zeros(&t.shape);
        let leaf = |(i, t): (usize, &TrainedParameter)| t.parameter.leaf_id().map(|leaf| (leaf, i));
        Self {
            of_leaf: trained.iter().enumerate().filter_map(leaf).collect(),
            sums: trained.iter().map(|t| summed(t).then(|| zeros(t))).collect(),
            at_once,
            squared_norms: vec![0.0; trained.len()],
        }
    }

    /// Takes the gradient of a leaf. A parameter that is updated at once takes a step at `lr`, unless a gradient so far was not
    /// finite.
    pub(super) fn take(&mut self, trained: &mut [TrainedParameter], leaf: LeafId, gradient: Tensor, lr: f64) {
        let Some(&i) = self.of_leaf.get(&leaf) else { return };
        if let Some(sum) = &mut self.sums[i] {
            ops::add_to(sum, &gradient.reshape(sum.shape()));
        } else if self.at_once && !trained[i].is_embedding {
            self.squared_norms[i] = ops::sum_squares(&gradient);
            if self.squared_norms.iter().all(|square| square.is_finite()) {
                trained[i].update(gradient, 1.0, lr);
            }
        }
    }

    /// The norm of all gradients together.
    pub(super) fn norm(&self) -> f64 {
        let summed: f64 = self.sums.iter().flatten().map(ops::sum_squares).sum();
        let used_up: f64 = self.squared_norms.iter().sum();
        (used_up + summed).sqrt()
    }

    /// The sums of the gradients, in the order of the parameters.
    pub(super) fn into_sums(self) -> Vec<Option<Tensor>> {
        self.sums
    }
}
