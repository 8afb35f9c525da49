//! From a set of pictures to trained weights.
//!
//! ```text
//! plan.rs          the plan of a training
//! preprocess/      pictures → squares, with the masks and captions that a set lacks
//! dataset/         a training set → square pictures with captions and masks
//! optim/           optimizers; lr_schedule.rs: the learning rate of each step
//! trainer/         the trainer
//! checkpoint.rs    the state of a run on disk, for resuming
//! run/             a training with its folder: metrics, samples, the loop
//! files.rs         files that are written whole or not at all
//! stop.rs          when a training may end before its last step
//! forecast/        the memory and time that a training takes
//! chart.rs, page/  a chart of the losses; pages of pictures and text
//! pillow.rs        pictures resized as Pillow does
//! ```
//!
//! `tools/reference/trainer.py` defines the computation, and the tests compare with its runs.
//!
//! ```
//! # fn main() -> Result<(), calotype_train::Error> {
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use calotype_models::ModelFolder;
//! use calotype_tensor::DType;
//! use calotype_train::dataset::Example;
//! use calotype_train::{Method, TrainPlan, Trainer, TrainerOptions};
//!
//! let folder = ModelFolder::open(Path::new("../../models/pocket"))?;
//! let plan = TrainPlan {
//!     seed: 1,
//!     resolution: 64,
//!     train_batch_size: 1,
//!     steps: 1,
//!     method: Method::Lora { rank: 4 },
//!     ..TrainPlan::default()
//! };
//! let grey = Example {
//!     name: "grey.png".into(),
//!     caption: "a photo of TOK".into(),
//!     rgb: vec![128; 64 * 64 * 3],
//!     mask: None,
//!     original_size: [64, 64],
//!     crop_top_left: [0, 0],
//! };
//! let options = TrainerOptions { dtype: DType::F32, recompute: false };
//! let mut trainer = Trainer::new(&folder, plan, &[grey], options, &mut |_| ControlFlow::Continue(()))?;
//! assert!(trainer.step()?.loss.is_finite());
//! assert!(!trainer.trained_weights().lora.is_empty());
//! # Ok(())
//! # }
//! ```

pub mod chart;
pub mod checkpoint;
pub mod dataset;
mod error;
pub mod files;
pub mod forecast;
pub mod lr_schedule;
pub mod optim;
pub mod page;
mod pillow;
pub mod plan;
pub mod preprocess;
pub mod run;
pub mod stop;
pub mod trainer;

pub use error::{CheckpointError, Error};
pub use plan::{LoraLayers, Method, TrainOptions, TrainPlan};
pub use trainer::{StepReport, Trainer, TrainerOptions};
