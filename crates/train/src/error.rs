//! The crate's error.

use std::path::PathBuf;

use calotype_models::{ConfigError, TokenizerError, WeightsError};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::adapters::AdapterError;
use calotype_sdxl::samplers::ScheduleError;

use crate::dataset::DatasetError;

/// Anything that can stop a training. `Display` is one line that names the argument, file or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument, the model or trained weights, as for a prediction.
    #[error(transparent)]
    Sdxl(#[from] calotype_sdxl::Error),
    /// A training set, or one of its files.
    #[error(transparent)]
    Dataset(DatasetError),
    /// A training's checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A run's folder that cannot be used.
    #[error("{path}: {problem}")]
    RunDir {
        /// The folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
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

/// `from_sdxl!(A, B)` implements `From<A>` and `From<B>` for [`Error`], by way of [`calotype_sdxl::Error`].
macro_rules! from_sdxl {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Sdxl(error.into())
            }
        })*
    };
}

from_sdxl!(
    ArgumentError,
    ConfigError,
    WeightsError,
    TokenizerError,
    AdapterError,
    ScheduleError,
    calotype_models::Error
);

/// What is wrong with a checkpoint whose files are whole.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// One of another training.
    #[error("{path}: of another training: {}", .differences.join("; "))]
    OtherTraining {
        /// The checkpoint.
        path: PathBuf,
        /// Each field that differs, with what was expected and what was found.
        differences: Vec<String>,
    },
    /// One that says what it should not, or that cannot be written.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
}
