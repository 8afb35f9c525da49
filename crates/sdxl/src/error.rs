//! The crate's error: what the command line shows, and the exit code that goes with it.

use std::path::PathBuf;

use crate::adapters::AdapterError;
use crate::config::ConfigError;
use crate::dataset::DatasetError;
use crate::request::InputError;
use crate::samplers::ScheduleError;
use crate::tokenizer::TokenizerError;
use crate::train::checkpoint::CheckpointError;
use crate::weights::WeightsError;

/// Anything that can stop a request. `Display` is one line that names the field, file or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The model folder, or one of its JSON files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint file or one of its tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file of trained weights, or one that does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A tokenizer's files, or a prompt that its model cannot take.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The scheduler's settings, or steps that they do not allow.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A training set, or one of its files.
    #[error(transparent)]
    Dataset(DatasetError),
    /// A training's checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The network's numbers ran out of range: a broken checkpoint, or one that bf16 is too coarse for.
    #[error("the picture is not finite: the model gives NaN or infinity (try --dtype f32)")]
    NotFinite,
    /// A file that could not be written or read while working.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A training that went wrong: nothing of this step was kept.
    #[error("step {step}: the loss, its gradient or a weight is not a number (try a lower learning rate)")]
    Diverged {
        /// Counted from 1.
        step: usize,
    },
    /// The caller stopped the run.
    #[error("interrupted")]
    Interrupted,
}

impl From<DatasetError> for Error {
    fn from(error: DatasetError) -> Self {
        if matches!(error, DatasetError::Interrupted) { Self::Interrupted } else { Self::Dataset(error) }
    }
}

impl Error {
    /// The process exit code: 2 bad input (a field, a model file), 130 interrupted, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::Config(_)
            | Self::Weights(_)
            | Self::Adapter(_)
            | Self::Tokenizer(_)
            | Self::Schedule(_)
            | Self::Dataset(_)
            | Self::Checkpoint(_) => 2,
            Self::Io { .. } | Self::NotFinite | Self::Diverged { .. } => 1,
            Self::Interrupted => 130,
        }
    }
}
