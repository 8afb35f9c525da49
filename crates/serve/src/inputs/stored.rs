//! An uploaded file as the database has it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::queue::{Queue, Record};

/// The kind of the records of uploaded files.
pub(crate) const KIND: &str = "file";

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    /// The id: 26 characters that cannot be guessed.
    #[serde(skip)]
    pub id: String,
    /// The account that uploaded the file.
    #[serde(skip)]
    pub owner: String,
    /// The name that the client gave.
    pub name: String,
    /// The media type that the client gave.
    pub content_type: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, as hexadecimal digits.
    pub sha256: String,
    /// MD5 of the content, as hexadecimal digits.
    pub md5: String,
    /// What the client gave along.
    pub metadata: Map<String, Value>,
    /// The key in the storage.
    pub key: String,
    /// Milliseconds since 1970.
    #[serde(skip)]
    pub created_at: i64,
    /// When the file ends: milliseconds since 1970.
    pub expires_at: i64,
}

impl StoredFile {
    /// The file with an id. `None`: no such file, or its time is over.
    pub(crate) async fn find(queue: &Queue, id: &str) -> Result<Option<StoredFile>> {
        let Some(record) = queue.record(KIND, id).await? else { return Ok(None) };
        let file = StoredFile::of(record)?;
        Ok((file.expires_at > queue.now().await?).then_some(file))
    }

    /// The file of a record.
    pub(crate) fn of(record: Record) -> Result<StoredFile> {
        let wrong = |e| Error::Database(format!("record of file {}: {e}", record.id));
        let file: StoredFile = serde_json::from_value(record.body).map_err(wrong)?;
        Ok(StoredFile { id: record.id, owner: record.parent, created_at: record.created_at, ..file })
    }

    /// The record of a file.
    pub(crate) fn record(&self) -> Record {
        let body = serde_json::to_value(self).expect("texts and numbers are JSON");
        let (id, parent) = (self.id.clone(), self.owner.clone());
        Record { kind: KIND.into(), id, parent, body, created_at: self.created_at }
    }
}
