//! The crate's error.

use crate::adapters::AdapterError;
use crate::samplers::ScheduleError;
use calotype_models::{ConfigError, TokenizerError, WeightsError};

/// The number of characters of an invalid value that a message shows.
const SHOWN: usize = 80;

/// An argument that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {expected}, found {found}")]
pub struct ArgumentError {
    /// The argument's name, in the published interface if it is there.
    pub name: String,
    /// The values that are valid.
    pub expected: String,
    /// The value that was given, shortened.
    pub found: String,
}

impl ArgumentError {
    /// An error of the argument `name`. The message shows the beginning of `found`, on one line.
    pub fn new(name: &str, expected: impl Into<String>, found: impl Into<String>) -> ArgumentError {
        let mut found = found.into().replace(char::is_control, " ");
        if let Some((end, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(end);
            found.push('…');
        }
        ArgumentError { name: name.into(), expected: expected.into(), found }
    }
}

/// A picture of a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {file}: {problem}")]
pub struct PictureError {
    /// The field of the request: `image` or `mask`.
    pub field: &'static str,
    /// The file, or the beginning of the data, on one line.
    pub file: String,
    /// The problem.
    pub problem: String,
}

impl PictureError {
    pub(crate) fn new(field: &'static str, file: &str, problem: impl Into<String>) -> PictureError {
        PictureError { field, file: calotype_models::shorten(file), problem: problem.into() }
    }
}

/// An error that stops a prediction. `Display` is one line that names the argument, file or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is invalid.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A picture of the request cannot be read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The model folder or one of its JSON files is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint file or one of its tensors is invalid.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tokenizer's file is invalid, or a prompt does not suit the tokenizer's model.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A file of trained weights is invalid or does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The scheduler's configuration is invalid, or does not allow the number of steps.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A network's values overflowed: the checkpoint is broken, or bf16 is too coarse for it.
    #[error("the picture is not finite: the model gives NaN or infinity (try --dtype f32)")]
    NotFinite,
    /// The caller stopped the run.
    #[error("interrupted")]
    Interrupted,
}

impl From<calotype_models::Error> for Error {
    fn from(error: calotype_models::Error) -> Self {
        match error {
            calotype_models::Error::Config(e) => Self::Config(e),
            calotype_models::Error::Weights(e) => Self::Weights(e),
            calotype_models::Error::Tokenizer(e) => Self::Tokenizer(e),
        }
    }
}
