//! The crate's error.

use crate::json::ConfigError;
use crate::tokenizer::TokenizerError;
use crate::weights::WeightsError;

/// A model's file that is not what it should be. `Display` is one line that names the file, and the field or tensor in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model folder, or one of its JSON files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint file or one of its tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tokenizer's files, or a prompt that its model cannot take.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
