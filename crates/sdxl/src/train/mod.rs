//! Training.
//!
//! ```text
//! stream.rs       the random numbers of a run, and which examples a batch takes
//! noise.rs        noisy latents and what the network should make of them
//! latents.rs      the pictures, as the VAE sees them
//! text.rs         the captions, as the text encoders see them, and the new tokens' embeddings
//! draw.rs         the random numbers of a batch
//! lora.rs, full.rs   what of the UNet trains: matrices beside its layers, or its own tensors
//! trained.rs      what trains, with its optimizer
//! gradients.rs    a step's gradients, added up or used up
//! batches.rs      latents, noise and captions, joined to batches
//! unet_trainer.rs a step on a batch
//! trainer.rs      a training between two steps
//! initial.rs      a training that begins from trained weights
//! validation.rs   a loss on numbers that are always the same
//! memory.rs       how much memory it takes
//! time.rs         how long it takes
//! stages.rs, work.rs   a UNet from front to back; what there is to compute
//! chart.rs        the losses as a picture
//! checkpoint.rs   a run on disk, to go on from
//! ```
//!
//! What is computed is defined by `tools/reference/trainer.py`, and proven against its runs.

mod batches;
pub mod chart;
pub mod checkpoint;
mod draw;
mod full;
mod gradients;
mod initial;
mod latents;
mod lora;
pub mod memory;
pub mod noise;
mod stages;
pub mod stream;
mod text;
pub mod time;
mod trained;
mod trainer;
mod unet_trainer;
mod validation;
mod work;

pub use stream::{Purpose, stream};
pub use text::NEW_TOKENS;
pub use trainer::{OnPicture, StepReport, Trainer, TrainerOptions};
pub use unet_trainer::{Batch, Rates, UNetTrainer};
