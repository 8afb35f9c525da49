//! The trainer, between two steps. `tools/reference/trainer.py` does the same in PyTorch.
//!
//! ```text
//! stream.rs       the random numbers of a run, and the examples of each batch
//! draw.rs         the random numbers of a batch
//! latents.rs      the pictures, encoded by the VAE
//! noise.rs        noisy latents and the targets of the UNet's predictions
//! text.rs         the captions, encoded by the text encoders, and the new tokens' embeddings
//! batches.rs      makes batches from all of these
//! lora.rs, full.rs   which parameters of the UNet are trained: LoRA matrices, or the UNet's own tensors
//! shapes.rs       the same, by the keys and shapes of the UNet's file
//! trained.rs      trained parameters, each with its optimizer
//! gradients.rs    a step's gradients, summed or applied at once
//! unet_trainer.rs one step on its batches
//! initial.rs      a training that begins from trained weights
//! validation.rs   a loss on random numbers that are always the same
//! ```

mod batches;
mod draw;
pub(crate) mod full;
mod gradients;
mod initial;
mod latents;
pub(crate) mod lora;
pub mod noise;
pub(crate) mod shapes;
pub mod stream;
pub(crate) mod text;
pub(crate) mod trained;
pub(crate) mod unet_trainer;
pub(crate) mod validation;

use std::ops::ControlFlow;

use calotype_tensor::{DType, ops};

use self::batches::Batches;
use self::draw::Draw;
use self::trained::TrainedParameter;
use crate::Error;
use crate::dataset::{self, Example};
use crate::lr_schedule::LrSchedule;
use crate::plan::{Method, TrainPlan};
use crate::stop::{self, Stop, Validation};
use calotype_models::nn::{Activations, Parameter};
use calotype_models::weights::store_for;
use calotype_models::{Component, ModelFolder};
use calotype_models::{ModelConfigs, UNet};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::adapters::{LoraPair, Stored, TrainedWeights};
use calotype_sdxl::plan::check_size;

pub use self::initial::check_initial;
pub use self::stream::{Purpose, stream};
pub use self::text::NEW_TOKENS;
pub use self::unet_trainer::{Batch, Rates, UNetTrainer};

/// How the trainer computes.
#[derive(Clone, Copy, Debug)]
pub struct TrainerOptions {
    /// The dtype of activations and frozen weights.
    pub dtype: DType,
    /// Whether the UNet's blocks recompute their activations in the backward pass (gradient checkpointing) or keep them.
    pub recompute: bool,
}

/// Called with the number of pictures that are encoded. A break stops the work before the next picture.
pub type OnPicture<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step's index, counted from 0.
    pub step: usize,
    /// The mean loss over the step's batches.
    pub loss: f64,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// The learning rate of the step.
    pub lr: f64,
    /// The learning rate of the embeddings: 0 once they are frozen.
    pub ti_lr: f64,
}

/// A training between two steps. All random numbers follow from the plan's seed and the number of steps done.
///
/// It computes on the threads that call. A process with several pipelines and trainings runs each in
/// [`Workers`](calotype_tensor::cpu::Workers) of its own, so that they share neither threads nor memory.
pub struct Trainer {
    plan: TrainPlan,
    options: TrainerOptions,
    schedule: LrSchedule,
    batches: Batches,
    unet: UNetTrainer,
    /// [`dataset::fingerprint`] of the examples.
    set: u32,
    /// [`ModelFolder::fingerprint`] of the model.
    model: u32,
    /// Optimizer steps done.
    done: usize,
    /// The validations so far, of a training that may end before its last step.
    validations: Vec<Validation>,
}

/// Checks that a model can be trained: its UNet takes latents alone.
///
/// # Errors
/// The model is made for inpainting.
pub fn check_model(configs: &ModelConfigs) -> Result<(), ArgumentError> {
    let (channels, latents) = (configs.unet.in_channels, configs.vae.latent_channels);
    if channels == latents {
        return Ok(());
    }
    let expected = format!("a model whose UNet takes the latents alone, {latents} channels");
    Err(ArgumentError::new("model", expected, format!("{channels} channels, as for inpainting")))
}

impl Trainer {
    /// Loads the networks and encodes the examples. The VAE is dropped afterwards. `on_picture` is called with the number of
    /// pictures that are encoded, from 0 on. A break stops with [`Error::Interrupted`] before the next picture.
    ///
    /// # Errors
    /// A file of the model's folder is missing or invalid, the resolution does not suit the VAE, the model lacks
    /// a text encoder, an example's mask is black in all latents, or `on_picture` breaks.
    pub fn new(
        folder: &ModelFolder,
        plan: TrainPlan,
        examples: &[Example],
        options: TrainerOptions,
        on_picture: &mut OnPicture,
    ) -> Result<Self, Error> {
        let configs = folder.configs()?;
        check_model(&configs).map_err(calotype_sdxl::Error::from)?;
        check_size("resolution", plan.resolution, configs.vae.scale())?;
        let unet_config = configs.unet.clone();
        let batches = Batches::load(folder, configs, &plan, examples, options.dtype, on_picture)?;
        let weights = folder.weights(Component::UNet, None, store_for(options.dtype))?.always_packed();
        let unet = UNet::load(&weights, &unet_config)?;
        let embeddings: Vec<Parameter> = batches.text.embeddings().cloned().collect();
        let activations = if options.recompute { Activations::Recompute } else { Activations::Keep };
        let unet = UNetTrainer::new(unet, &plan, &embeddings, activations)?;
        let schedule = LrSchedule::new(plan.lr_scheduler, plan.lr_warmup_steps, plan.steps);
        let (set, model) = (dataset::fingerprint(examples), folder.fingerprint()?);
        Ok(Self { plan, options, schedule, batches, unet, set, model, done: 0, validations: Vec::new() })
    }

    /// The plan of the training.
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// Optimizer steps done.
    pub fn steps_done(&self) -> usize {
        self.done
    }

    /// How the trainer computes.
    pub fn options(&self) -> TrainerOptions {
        self.options
    }

    /// A CRC-32 that tells the examples from others.
    pub(crate) fn set(&self) -> u32 {
        self.set
    }

    /// A CRC-32 that tells the model from others.
    pub(crate) fn model(&self) -> u32 {
        self.model
    }

    /// Every trained parameter, in a fixed order.
    pub(crate) fn trained(&self) -> &[TrainedParameter] {
        self.unet.trained()
    }

    /// Whether all values of the trained parameters are finite.
    pub(crate) fn is_finite(&self) -> bool {
        // A sum of f32 squares in f64 is finite if all of them are.
        self.trained().iter().all(|trained| ops::sum_squares(&trained.parameter.values()).is_finite())
    }

    /// Continues after `done` steps, with the validations so far. `fill` restores each parameter.
    pub(crate) fn resume(
        &mut self,
        done: usize,
        validations: Vec<Validation>,
        fill: impl FnMut(&mut TrainedParameter),
    ) {
        self.unet.trained_mut().iter_mut().for_each(fill);
        self.batches.text.clear_cache();
        self.done = done;
        self.validations = validations;
    }

    /// The validations so far, in the order of their steps, if the training may end before its last step ([`Stop::Auto`]).
    pub fn validations(&self) -> &[Validation] {
        &self.validations
    }

    /// Takes the validation loss of the present step into account, if the training may end before its last step. Returns whether
    /// this step is the best so far.
    pub(crate) fn take_validation(&mut self, loss: f64) -> bool {
        if self.plan.options.stop == Stop::Off || self.is_validated() {
            return false;
        }
        // A checkpoint's JSON has no infinity and no NaN.
        let loss = if loss.is_finite() { loss } else { f64::MAX };
        self.validations.push((self.done, loss));
        stop::best(&self.validations).is_some_and(|(step, _)| step == self.done)
    }

    /// Whether [`Self::validations`] has the present step.
    pub(crate) fn is_validated(&self) -> bool {
        self.validations.last().is_some_and(|(step, _)| *step == self.done)
    }

    /// Whether the training ends before its next step: all steps are done, or the validation loss has stopped falling.
    pub fn is_over(&self) -> bool {
        self.done >= self.plan.steps || self.stops()
    }

    /// Whether the training ends because the validation loss has stopped falling.
    pub fn stops(&self) -> bool {
        self.plan.options.stop == Stop::Auto && stop::has_stopped_falling(&self.validations)
    }

    /// The weights as trained so far. The tensors of a full fine-tune are not copied: writing them later writes their values of
    /// that time.
    pub fn trained_weights(&self) -> TrainedWeights {
        let find = |name: &str| {
            let trained = self.trained().iter().find(|trained| trained.name == name);
            trained.map(|trained| trained.parameter.values())
        };
        let mut weights = TrainedWeights {
            tokens: [(self.plan.token_string.clone(), NEW_TOKENS.concat())].into(),
            embeddings: find("text_encoders_0").zip(find("text_encoders_1")).map(|(a, b)| [a, b]),
            ..TrainedWeights::default()
        };
        if self.plan.method == Method::Full {
            let of_unet = self.trained().iter().filter(|trained| !trained.is_embedding);
            let stored = |t: &TrainedParameter| Stored::training(t.shape.clone(), t.parameter.clone());
            weights.unet = of_unet.map(|trained| (trained.name.clone(), stored(trained))).collect();
        }
        for trained in self.trained() {
            let Some(path) = trained.name.strip_suffix(".down") else { continue };
            let (down, up) = (find(&trained.name), find(&format!("{path}.up")));
            weights.lora.extend(down.zip(up).map(|(down, up)| (path.to_string(), LoraPair::new(down, up))));
        }
        weights
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// The loss or a gradient is not finite. Nothing has changed then, unless tensors are updated as soon as their gradients
    /// are known (Adafactor). Such a training can continue from a checkpoint only.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let (step, batches) = (self.done, self.plan.options.gradient_accumulation_steps);
        let embeddings_train = step < self.plan.pivot();
        let factor = self.schedule.factor(step);
        let lr = self.plan.lr * factor;
        let ti_lr = embeddings_train.then_some(self.plan.ti_lr * factor);
        let mut next = |i: usize| self.batches.of_training(&self.plan, step * batches + i, embeddings_train);
        let taken = self.unet.step_on(Rates { lr, ti_lr }, &mut next);
        let (loss, grad_norm) = taken.ok_or(Error::Diverged { step: step + 1 })?;
        if embeddings_train {
            self.batches.text.rescale();
        }
        self.done += 1;
        Ok(StepReport { step, loss, grad_norm, lr, ti_lr: ti_lr.unwrap_or(0.0) })
    }

    /// The loss of the examples `items` with the captions of `captions` (`None`: the empty prompt), with frozen embeddings.
    pub(crate) fn loss(&mut self, items: &[usize], captions: &[Option<usize>], draw: &Draw) -> f64 {
        let batch = self.batches.of_examples(items, captions, draw, false);
        f64::from(self.unet.loss(&batch).to_vec()[0])
    }

    /// The number of examples, the shape (h, w, C) of their latents, and the number of timesteps.
    pub(crate) fn sizes(&self) -> (usize, [usize; 3], usize) {
        (self.batches.examples(), self.batches.latents_shape(), self.batches.timesteps())
    }
}
