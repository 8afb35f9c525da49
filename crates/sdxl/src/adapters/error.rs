//! What can be wrong with trained weights.

use std::path::{Path, PathBuf};

use calotype_models::shorten;

/// Trained weights that cannot be read, or not be used with a model, or not be written in a layout. Always one line.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file that is missing, unreadable, truncated or not in its format.
    #[error("{path}: {problem}")]
    File {
        /// The file; inside of a tar, `trained_model.tar/lora.safetensors`.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A tensor, or an entry of a JSON file, that cannot be used.
    #[error("{path}: {key}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// What a layout has no place for.
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

    /// The same, with a note at its end.
    pub(super) fn noted(self, note: &str) -> Self {
        let with = |problem: String| format!("{problem} ({note})");
        match self {
            Self::File { path, problem } => Self::File { path, problem: with(problem) },
            Self::Key { path, key, problem } => Self::Key { path, key, problem: with(problem) },
            Self::Layout(problem) => Self::Layout(with(problem)),
        }
    }
}

/// What may quote a file, on one line.
fn line(problem: impl std::fmt::Display) -> String {
    problem.to_string().replace(char::is_control, " ")
}
