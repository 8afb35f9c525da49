//! The crate's error.

use std::path::PathBuf;

use calotype_models::{ConfigError, TokenizerError, WeightsError};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::adapters::AdapterError;
use calotype_sdxl::samplers::ScheduleError;

use crate::dataset::DatasetError;

/// An error that stops a training. `Display` is one line that names the argument, file or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument, the model or trained weights are invalid, as in a prediction.
    #[error(transparent)]
    Sdxl(#[from] calotype_sdxl::Error),
    /// The training set or one of its files is invalid.
    #[error(transparent)]
    Dataset(DatasetError),
    /// A checkpoint of a training is invalid.
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
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The training diverged: a loss, gradient or weight is not finite.
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
        match error {
            DatasetError::Interrupted => Self::Interrupted,
            DatasetError::Io { path, source } => Self::Io { path, source },
            error => Self::Dataset(error),
        }
    }
}

/// `from_sdxl!(A, B)` implements `From<A>` and `From<B>` for [`Error`], through [`calotype_sdxl::Error`].
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

/// A problem of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The checkpoint belongs to another training.
    #[error("{path}: of another training: {}", .differences.join("; "))]
    OtherTraining {
        /// The checkpoint.
        path: PathBuf,
        /// Each field that differs, with what was expected and what was found.
        differences: Vec<String>,
    },
    /// The checkpoint has an invalid file or cannot be written.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
}
