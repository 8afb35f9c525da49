//! From a set of pictures to trained weights.
//!
//! ```text
//! plan.rs          what a training is to do
//! dataset/         a set of pictures → squares with captions and masks
//! optim/           optimizers; lr_schedule.rs: the learning rate of each step
//! trainer/         the training itself
//! checkpoint.rs    a training on disk, to go on from
//! forecast/        how much memory and time it takes
//! chart.rs, page/  the losses as a picture; pages of pictures and text
//! ```
//!
//! What is computed is defined by `tools/reference/trainer.py`, and proven against its runs.

pub mod chart;
pub mod checkpoint;
pub mod dataset;
mod error;
pub mod forecast;
pub mod lr_schedule;
pub mod optim;
pub mod page;
pub mod plan;
pub mod trainer;

pub use error::{CheckpointError, Error};
pub use plan::{Method, TrainOptions, TrainPlan};
pub use trainer::{StepReport, Trainer, TrainerOptions};
