//! A step of a training: the loss of its batches, their gradients, the optimizers' steps.

use calotype_tensor::{DType, Tensor, ops};

use super::gradients::StepGradients;
use super::trained::{self, TrainedParameter};
use crate::optim;
use crate::plan::TrainPlan;
use calotype_models::UNet;
use calotype_models::nn::{Activations, Parameter};
use calotype_sdxl::ArgumentError;

/// The inputs of a UNet and the target of its prediction, for B pictures.
pub struct Batch {
    /// (B, h, w, C): noisy latents, in the dtype to compute in.
    pub sample: Tensor,
    /// A timestep for each picture, or one for all pictures.
    pub timesteps: Vec<f32>,
    /// (B, 77, text channels): the captions' hidden states, in the dtype to compute in.
    pub hidden: Tensor,
    /// (B, pooled): the captions' pooled embeddings.
    pub pooled: Tensor,
    /// (B, 6), in pixels: original height and width, crop top and left, target height and width.
    pub time_ids: Tensor,
    /// (B, h, w, C), f32: the noise or the velocity.
    pub target: Tensor,
    /// (B, h, w), f32: the factor of each latent's error. `None`: 1.
    pub weights: Option<Tensor>,
}

/// The learning rates of a step.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// That of the UNet's parameters.
    pub lr: f64,
    /// That of the new tokens' embeddings. `None`: the embeddings are frozen.
    pub ti_lr: Option<f64>,
}

/// A UNet and the parameters that are trained with it.
pub struct UNetTrainer {
    unet: UNet,
    trained: Vec<TrainedParameter>,
    activations: Activations,
    /// Batches per step.
    batches: usize,
    /// See [`TrainPlan::steps_at_once`].
    at_once: bool,
    max_grad_norm: Option<f64>,
}

/// The loss of a batch, a scalar. The loss is on the tape if a parameter is.
pub(crate) fn loss(unet: &UNet, batch: &Batch, activations: Activations) -> Tensor {
    let context = unet.prepare(&batch.hidden, &batch.pooled, &batch.time_ids);
    let prediction = unet.forward_for_training(&batch.sample, &batch.timesteps, &context, activations);
    ops::mse(&prediction, &batch.target, batch.weights.as_ref())
}

impl UNetTrainer {
    /// Prepares the UNet for the plan's method. `embeddings` holds the new tokens' embeddings of each text encoder, in f32;
    /// they are trained too.
    ///
    /// # Errors
    /// The plan names an unknown optimizer.
    pub fn new(
        mut unet: UNet,
        plan: &TrainPlan,
        embeddings: &[Parameter],
        activations: Activations,
    ) -> Result<Self, ArgumentError> {
        let trained = trained::all(plan, &mut unet, embeddings)?;
        let batches = plan.options.gradient_accumulation_steps;
        let (at_once, max_grad_norm) = (plan.steps_at_once()?, plan.max_grad_norm());
        Ok(Self { unet, trained, activations, batches, at_once, max_grad_norm })
    }

    /// Every trained parameter, in a fixed order.
    pub(super) fn trained(&self) -> &[TrainedParameter] {
        &self.trained
    }

    pub(super) fn trained_mut(&mut self) -> &mut [TrainedParameter] {
        &mut self.trained
    }

    /// The loss of a batch, a scalar. The loss is on the tape if a parameter is.
    pub fn loss(&self, batch: &Batch) -> Tensor {
        loss(&self.unet, batch, self.activations)
    }

    /// Takes a step on as many batches as the plan accumulates; `next(i)` makes batch i. Returns the mean loss and the norm of
    /// all gradients before clipping.
    ///
    /// Returns `None` if the loss or a gradient is not finite. Nothing has changed then, unless tensors are updated as soon as
    /// their gradients are known (Adafactor). Such a training can continue from a checkpoint only.
    pub fn step_on(&mut self, rates: Rates, next: &mut dyn FnMut(usize) -> Batch) -> Option<(f64, f64)> {
        let Rates { lr, ti_lr } = rates;
        let mut gradients = StepGradients::new(&self.trained, ti_lr.is_some(), self.at_once);
        let mut loss = 0.0;
        for i in 0..self.batches {
            let batch_loss = self.loss(&next(i));
            loss += f64::from(batch_loss.to_vec()[0]) / self.batches as f64;
            if !loss.is_finite() {
                return None;
            }
            let scale = batch_loss.device().full(&[], 1.0 / self.batches as f32, DType::F32);
            let trained = &mut self.trained;
            batch_loss
                .backward_with(scale, &mut |leaf, gradient| gradients.take(trained, leaf, gradient, lr));
        }
        let grad_norm = gradients.norm();
        if !grad_norm.is_finite() {
            return None;
        }
        let clip = self.max_grad_norm.map_or(1.0, |max| optim::clip_factor(grad_norm, max));
        for (trained, gradient) in self.trained.iter_mut().zip(gradients.into_sums()) {
            if let Some(gradient) = gradient {
                let lr = if trained.is_embedding { ti_lr.unwrap_or(0.0) } else { lr };
                trained.update(gradient, clip as f32, lr);
            }
        }
        Some((loss, grad_norm))
    }
}
