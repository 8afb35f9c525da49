//! Errors of the service's own parts: what lies beneath does not answer.

/// The database or the storage cannot do what was asked. A client gets 503 and may try again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("the database: {0}")]
    Database(String),
    /// The storage of files.
    #[error("the storage: {0}")]
    Storage(String),
    /// The settings are wrong; the service does not start.
    #[error("{0}")]
    Settings(String),
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
