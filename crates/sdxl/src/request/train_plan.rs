//! A training: the request and the settings beyond it, checked and settled.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{FileType, LrScheduler};
use crate::Error;
use crate::optim::{self, Optimizer};

/// Settings of a training that the published interface lacks. All are off, or what the interface implies, by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Batches whose gradients are added up before each step.
    pub gradient_accumulation_steps: usize,
    /// The norm that gradients are clipped to, all together; none: they are not. A full fine-tune with Adafactor cannot
    /// clip: each gradient is used up before the next is known.
    pub max_grad_norm: Option<f64>,
    /// γ of min-SNR weighting. Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
    pub min_snr_gamma: Option<f64>,
    /// How much of the noise is the same all over a channel of a picture.
    pub noise_offset: f64,
    /// How often a caption is left out, 0 to 1.
    pub caption_dropout: f64,
    /// Trains the new tokens' embeddings alone, over all steps.
    pub textual_inversion_only: bool,
    /// Which optimizer; none: AdamW, and Adafactor for a full fine-tune.
    pub optimizer: Option<String>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            gradient_accumulation_steps: 1,
            max_grad_norm: Some(1.0),
            min_snr_gamma: None,
            noise_offset: 0.0,
            caption_dropout: 0.0,
            textual_inversion_only: false,
            optimizer: None,
        }
    }
}

/// What trains besides the embeddings of the new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Low-rank matrices beside the UNet's attention projections.
    Lora {
        /// At least 1.
        rank: usize,
    },
    /// The UNet itself.
    Full,
    /// Nothing.
    TextualInversion,
}

/// A checked training: what the trainer works from, and what its run directory keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// The set: an archive or a folder.
    pub input_images: PathBuf,
    /// What kind of archive it is.
    pub input_images_filetype: FileType,
    /// Everything random follows it.
    pub seed: u64,
    /// Side of the square pictures, in pixels; a multiple of 64.
    pub resolution: usize,
    /// Pictures a batch, at least 1.
    pub train_batch_size: usize,
    /// Optimizer steps, at least 1.
    pub steps: usize,
    /// What trains.
    pub method: Method,
    /// Learning rate of what `method` trains.
    pub lr: f64,
    /// Learning rate of the new tokens' embeddings.
    pub ti_lr: f64,
    /// How learning rates go over the training.
    pub lr_scheduler: LrScheduler,
    /// Steps of its warm-up.
    pub lr_warmup_steps: usize,
    /// The word that is learnt.
    pub token_string: String,
    /// The caption of pictures that have none.
    pub caption_prefix: String,
    /// Whether pictures are cropped around what their mask shows.
    pub crop_based_on_salience: bool,
    /// Steps between checkpoints.
    pub checkpointing_steps: usize,
    /// The settings beyond the published interface.
    pub options: TrainOptions,
}

impl TrainPlan {
    /// The first step from which on the embeddings stand still: half way, where something else trains too.
    pub fn pivot(&self) -> usize {
        match self.method {
            Method::TextualInversion => self.steps,
            _ => self.steps.div_ceil(2),
        }
    }

    /// The optimizer of what `method` trains. Embeddings always train by AdamW.
    ///
    /// # Errors
    /// There is none of the name that was given.
    pub fn optimizer(&self) -> Result<&'static dyn Optimizer, Error> {
        match (&self.options.optimizer, self.method) {
            (Some(name), _) => optim::find(name),
            (None, Method::Full) => Ok(&optim::Adafactor),
            (None, _) => Ok(&optim::AdamW),
        }
    }
}
