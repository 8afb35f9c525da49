//! Errors of trained weights.

use std::path::{Path, PathBuf};

use calotype_models::shorten;

/// Trained weights cannot be read, used with a model, or written in a layout. The message is always one line.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is missing, unreadable, truncated or not in its format.
    #[error("{path}: {problem}")]
    File {
        /// The file. A member of a tar has a path such as `trained_model.tar/lora.safetensors`.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor or an entry of a JSON file is invalid.
    #[error("{path}: {key}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key in the file.
        key: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor does not suit the model: weights for another model are a likely cause.
    #[error("{path}: {key}: {problem}")]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// The key in the file.
        key: String,
        /// What the model expects and what was found.
        problem: String,
    },
    /// The weights have a part that the layout cannot store.
    #[error("{0}")]
    Layout(String),
}

impl AdapterError {
    pub(super) fn file(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_path_buf(), problem: line(problem) }
    }

    pub(super) fn key(path: &Path, key: &str, problem: impl std::fmt::Display) -> Self {
        Self::Key { path: path.to_path_buf(), key: shorten(key), problem: line(problem) }
    }

    pub(super) fn unsuitable(path: &Path, key: &str, problem: impl std::fmt::Display) -> Self {
        Self::Unsuitable { path: path.to_path_buf(), key: shorten(key), problem: line(problem) }
    }

    /// The same error, with a note at the end of its message that says what the file is.
    pub(super) fn noted(self, note: &str) -> Self {
        let with = |problem: String| format!("{problem} ({note})");
        match self {
            Self::File { path, problem } => Self::File { path, problem: with(problem) },
            Self::Key { path, key, problem } | Self::Unsuitable { path, key, problem } => {
                Self::Key { path, key, problem: with(problem) }
            }
            Self::Layout(problem) => Self::Layout(with(problem)),
        }
    }
}

/// Replaces control characters, as the text may quote a file.
fn line(problem: impl std::fmt::Display) -> String {
    problem.to_string().replace(char::is_control, " ")
}
