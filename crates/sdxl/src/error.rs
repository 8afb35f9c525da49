//! The crate's error.

use crate::adapters::AdapterError;
use crate::samplers::ScheduleError;
use calotype_models::{ConfigError, TokenizerError, WeightsError};

/// How many characters of a wrong value are shown.
const SHOWN: usize = 80;

/// An argument that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {expected}, found {found}")]
pub struct ArgumentError {
    /// The argument, by its name in the published interface where it has one.
    pub name: String,
    /// What would do.
    pub expected: String,
    /// What was given, cut short.
    pub found: String,
}

impl ArgumentError {
    /// The argument `name` takes `expected`, but `found` was given, of which the beginning is shown, on one line.
    pub fn new(name: &str, expected: impl Into<String>, found: impl Into<String>) -> ArgumentError {
        let mut found = found.into().replace(char::is_control, " ");
        if let Some((end, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(end);
            found.push('…');
        }
        ArgumentError { name: name.into(), expected: expected.into(), found }
    }
}

/// Anything that can stop a prediction. `Display` is one line that names the argument, file or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The model folder, or one of its JSON files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint file or one of its tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tokenizer's files, or a prompt that its model cannot take.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A file of trained weights, or one that does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The scheduler's settings, or steps that they do not allow.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The network's numbers ran out of range: a broken checkpoint, or one that bf16 is too coarse for.
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
