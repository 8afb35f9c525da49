//! The plan of a training: a checked request.

use std::path::PathBuf;

use calotype_sdxl::ArgumentError;
use serde::{Deserialize, Serialize};

use crate::dataset::{FileType, check};
use crate::lr_schedule::LrScheduler;
use crate::optim::{self, Optimizer};
use crate::stop::Stop;

/// The most steps of a run.
const MAX_STEPS: usize = 10_000_000;

/// The most bytes of a token in trained weights.
const MAX_TOKEN_BYTES: usize = 256;

/// The layers of the UNet that get low-rank matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraLayers {
    /// The projections of its attentions, as in the published trainer.
    #[default]
    Attention,
    /// Every linear layer and convolution.
    All,
}

/// Settings of a training that the published interface lacks. By default, all are off or have the value that the interface
/// implies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Batches whose gradients are added up before each step.
    pub gradient_accumulation_steps: usize,
    /// The norm to which all gradients together are clipped. 0: no clipping. `None`: 1, if the optimizer clips. Adafactor does
    /// not clip: it limits each step by itself, and may use up each gradient before the next is known.
    pub max_grad_norm: Option<f64>,
    /// γ of min-SNR weighting. Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
    pub min_snr_gamma: Option<f64>,
    /// The factor of the noise that is constant over a channel of a picture, 0 to 1.
    pub noise_offset: f64,
    /// The probability that a caption is replaced by the empty prompt, 0 to 1.
    pub caption_dropout: f64,
    /// Trains only the new tokens' embeddings, in all steps.
    pub textual_inversion_only: bool,
    /// The optimizer's name. `None`: AdamW, or Adafactor for a full fine-tune.
    pub optimizer: Option<String>,
    /// The layers that get low-rank matrices, in LoRA training.
    pub lora_layers: LoraLayers,
    /// Whether the training may end before its last step.
    pub stop: Stop,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            gradient_accumulation_steps: 1,
            max_grad_norm: None,
            min_snr_gamma: None,
            noise_offset: 0.0,
            caption_dropout: 0.0,
            textual_inversion_only: false,
            optimizer: None,
            lora_layers: LoraLayers::Attention,
            stop: Stop::Off,
        }
    }
}

impl TrainOptions {
    fn check(&self) -> Result<(), ArgumentError> {
        let wrong =
            |name: &str, expected: &str, found: String| Err(ArgumentError::new(name, expected, found));
        let batches = self.gradient_accumulation_steps;
        if !(1..=1024).contains(&batches) {
            return wrong("gradient_accumulation_steps", "an integer from 1 to 1024", batches.to_string());
        }
        if let Some(norm) = self.max_grad_norm.filter(|norm| !(norm.is_finite() && *norm >= 0.0)) {
            return wrong("max_grad_norm", "a number above 0, or 0 for no clipping", norm.to_string());
        }
        if let Some(gamma) = self.min_snr_gamma.filter(|gamma| !(gamma.is_finite() && *gamma > 0.0)) {
            return wrong("min_snr_gamma", "a number above 0", gamma.to_string());
        }
        if !(0.0..=1.0).contains(&self.noise_offset) {
            return wrong("noise_offset", "a number from 0 to 1", self.noise_offset.to_string());
        }
        if !(0.0..=1.0).contains(&self.caption_dropout) {
            return wrong("caption_dropout", "a number from 0 to 1", self.caption_dropout.to_string());
        }
        self.optimizer.as_deref().map(optim::find).transpose().map(drop)
    }
}

/// The parameters that are trained besides the embeddings of the new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Low-rank matrices beside the UNet's layers ([`TrainOptions::lora_layers`]).
    Lora {
        /// At least 1.
        rank: usize,
    },
    /// The UNet itself.
    Full,
    /// Nothing.
    TextualInversion,
}

/// A checked training request. The trainer works from it, and the run's folder stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// The training set: an archive or a folder.
    pub input_images: PathBuf,
    /// The type of the archive.
    pub input_images_filetype: FileType,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The side of the square pictures, in pixels; a multiple of 64.
    pub resolution: usize,
    /// Pictures per batch, at least 1.
    pub train_batch_size: usize,
    /// Optimizer steps, at least 1.
    pub steps: usize,
    /// The parameters that are trained.
    pub method: Method,
    /// The learning rate of the parameters that `method` trains.
    pub lr: f64,
    /// The learning rate of the new tokens' embeddings.
    pub ti_lr: f64,
    /// The learning-rate schedule.
    pub lr_scheduler: LrScheduler,
    /// The warm-up steps of the schedule.
    pub lr_warmup_steps: usize,
    /// The word that the model learns.
    pub token_string: String,
    /// The caption of pictures without a caption.
    pub caption_prefix: String,
    /// Whether pictures are cropped around the white part of their mask.
    pub crop_based_on_salience: bool,
    /// Steps between checkpoints.
    pub checkpointing_steps: usize,
    /// The first step in which the embeddings are frozen, if that is not half of the steps. Set if the number of steps of a run
    /// was changed ([`Self::with_steps`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pivot: Option<usize>,
    /// The settings beyond the published interface.
    pub options: TrainOptions,
}

impl Default for TrainPlan {
    /// The published defaults, with a random seed and no training set.
    fn default() -> TrainPlan {
        TrainPlan {
            input_images: PathBuf::new(),
            input_images_filetype: FileType::Infer,
            seed: calotype_sdxl::plan::random_seed(),
            resolution: 512,
            train_batch_size: 4,
            steps: 1000,
            method: Method::Lora { rank: 32 },
            lr: 1e-4,
            ti_lr: 3e-4,
            lr_scheduler: LrScheduler::Constant,
            lr_warmup_steps: 100,
            token_string: "TOK".into(),
            caption_prefix: "a photo of TOK, ".into(),
            crop_based_on_salience: true,
            checkpointing_steps: 200,
            pivot: None,
            options: TrainOptions::default(),
        }
    }
}

impl TrainPlan {
    /// Checks the plan's fields, and sets the norm that gradients are clipped to.
    ///
    /// # Errors
    /// The token is not a word, the prefix lacks the token, the optimizer is unknown, or a setting is out of range.
    pub fn checked(mut self) -> Result<TrainPlan, ArgumentError> {
        self.options.check()?;
        let token = &self.token_string;
        if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let found = format!("{token:?}");
            return Err(ArgumentError::new("token_string", "a word without spaces", found));
        }
        if token.len() > MAX_TOKEN_BYTES {
            let expected = format!("a word of at most {MAX_TOKEN_BYTES} bytes");
            return Err(ArgumentError::new("token_string", expected, format!("{} bytes", token.len())));
        }
        check::prefix(&self.caption_prefix, token)?;
        if self.method == Method::Full && self.options.textual_inversion_only {
            let expected = "false for a full fine-tune (is_lora false)";
            return Err(ArgumentError::new("textual_inversion_only", expected, "true"));
        }
        if !matches!(self.method, Method::Lora { .. }) && self.options.lora_layers != LoraLayers::default() {
            let expected = "attention, as this training has no LoRA whose layers could be chosen";
            return Err(ArgumentError::new("lora_layers", expected, "all"));
        }
        let clipped = self.max_grad_norm();
        match self.options.max_grad_norm {
            Some(norm) if norm > 0.0 && clipped.is_none() => {
                let expected = "0 with an optimizer that does not clip (adafactor)";
                Err(ArgumentError::new("max_grad_norm", expected, norm.to_string()))
            }
            _ => {
                self.options.max_grad_norm = Some(clipped.unwrap_or(0.0));
                Ok(self)
            }
        }
    }

    /// Sets the number of steps so that a set of `pictures` is seen `epochs` times.
    pub fn for_epochs(mut self, epochs: usize, pictures: usize) -> TrainPlan {
        let a_step = self.train_batch_size * self.options.gradient_accumulation_steps;
        self.steps = epochs.saturating_mul(pictures).div_ceil(a_step).clamp(1, MAX_STEPS);
        self
    }

    /// Sets another number of steps, for a run with `done` steps done. If the embeddings are still trained, they are frozen at
    /// half of the new number, or at once if that is past. Embeddings that are frozen stay frozen.
    ///
    /// # Errors
    /// `steps` is less than `done`.
    pub fn with_steps(mut self, steps: usize, done: usize) -> Result<TrainPlan, ArgumentError> {
        if steps < done {
            let expected = format!("at least {done}, the steps that are done");
            return Err(ArgumentError::new("max_train_steps", expected, steps.to_string()));
        }
        let before = self.pivot();
        self.steps = steps;
        self.pivot = None;
        let half = self.pivot();
        let pivot = if done <= before { half.max(done) } else { before };
        self.pivot = (pivot != half).then_some(pivot);
        Ok(self)
    }

    /// The request's fields that have no effect with this plan's method.
    pub fn without_effect(&self) -> &'static [&'static str] {
        match self.method {
            Method::Lora { .. } => &["unet_learning_rate"],
            Method::Full => &["lora_lr", "lora_rank", "lora_layers"],
            Method::TextualInversion => {
                &["lora_lr", "lora_rank", "lora_layers", "unet_learning_rate", "optimizer"]
            }
        }
    }

    /// The first step in which the embeddings are frozen: half of the steps, unless only the embeddings are
    /// trained or the number of steps was changed during the run.
    pub fn pivot(&self) -> usize {
        match self.method {
            Method::TextualInversion => self.steps,
            _ => self.pivot.unwrap_or(self.steps.div_ceil(2)),
        }
    }

    /// The norm that gradients are clipped to. `None`: no clipping.
    pub fn max_grad_norm(&self) -> Option<f64> {
        let norm = Some(self.options.max_grad_norm.unwrap_or(1.0));
        let clips = self.optimizer().is_ok_and(Optimizer::clips);
        norm.filter(|norm| clips && *norm > 0.0)
    }

    /// Whether each tensor is updated as soon as its gradient is known, and the gradient dropped. This is possible if gradients
    /// need not wait to be clipped together or to be accumulated over batches.
    ///
    /// # Errors
    /// The plan names an unknown optimizer.
    pub fn steps_at_once(&self) -> Result<bool, ArgumentError> {
        Ok(!self.optimizer()?.clips() && self.options.gradient_accumulation_steps == 1)
    }

    /// The optimizer of the parameters that `method` trains. Embeddings always use AdamW.
    ///
    /// # Errors
    /// The plan names an unknown optimizer.
    pub fn optimizer(&self) -> Result<&'static dyn Optimizer, ArgumentError> {
        match (&self.options.optimizer, self.method) {
            (Some(name), Method::TextualInversion) => {
                optim::find(name).map(|_| &optim::AdamW as &dyn Optimizer)
            }
            (Some(name), _) => optim::find(name),
            (None, Method::Full) => Ok(&optim::Adafactor),
            (None, _) => Ok(&optim::AdamW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: usize) -> TrainPlan {
        TrainPlan { steps, ..TrainPlan::default() }
    }

    /// Protects a changed number of steps: embeddings that are still trained are frozen at half of the new number. Frozen
    /// embeddings stay frozen, however often the number changes.
    #[test]
    fn another_number_of_steps() {
        for (steps, done, other, pivot) in
            [(10, 4, 20, 10), (10, 5, 20, 10), (10, 6, 20, 5), (10, 10, 20, 5), (10, 4, 6, 4), (10, 8, 8, 5)]
        {
            let changed = plan(steps).with_steps(other, done).expect("a plan");
            assert_eq!((changed.steps, changed.pivot()), (other, pivot), "{steps} {done} {other}");
            assert_eq!(changed.pivot.is_some(), pivot != other.div_ceil(2));
            if done == 6 {
                assert_eq!(changed.with_steps(40, 12).expect("a plan").pivot(), 5);
            }
        }
        let fewer = plan(10).with_steps(5, 6).expect_err("refused").to_string();
        assert_eq!(fewer, "max_train_steps: expected at least 6, the steps that are done, found 5");
    }
}
