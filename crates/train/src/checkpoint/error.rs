use std::path::PathBuf;

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
