//! What can be wrong with a checkpoint.

use std::path::{Path, PathBuf};

/// A problem of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file is missing, unreadable, truncated or not in its format.
    #[error("{path}: {problem}")]
    File {
        /// The file or its folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A shard index cannot be read.
    #[error("{0}")]
    Index(String),
    /// A tensor has another shape or element type than the config implies.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Mismatch {
        /// The file with the tensor.
        file: PathBuf,
        /// The tensor's key in the file.
        key: String,
        /// The shape or element types that are valid.
        expected: String,
        /// The shape or element type that was found.
        found: String,
    },
    /// No file has a tensor.
    #[error("{file}: {key}: missing, expected {expected}")]
    Missing {
        /// The file, or the index of the shards.
        file: PathBuf,
        /// The tensor's key.
        key: String,
        /// The shape that the tensor should have.
        expected: String,
    },
    /// The model has no place for some tensors.
    #[error("{file}: {first}: surplus, expected no such tensor ({count} in all)")]
    Surplus {
        /// The file with the first of the tensors.
        file: PathBuf,
        /// The first few keys.
        first: String,
        /// The number of such tensors.
        count: usize,
    },
}

impl WeightsError {
    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), problem: problem.into() }
    }
}

/// A shape as Python writes it: `(640, 640)`, `(640,)`.
pub fn tuple(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        many => format!("({})", many.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}
