//! The crate's error.

use crate::json::ConfigError;
use crate::tokenizer::TokenizerError;
use crate::weights::WeightsError;

/// An invalid file of a model. `Display` is one line that names the file, and the field or tensor in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model folder or one of its JSON files is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint file or one of its tensors is invalid.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tokenizer's file is invalid, or a prompt does not suit the tokenizer's model.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
