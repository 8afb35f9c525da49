//! Files that outlive a process: pictures, weights, checkpoints, uploads. They are in a folder or in S3.
//!
//! A key is a path of plain names: `jobs/{id}/{attempt}/out-0.png`, `jobs/{id}/input/…`, `trainings/{id}/checkpoints/…`, `files/{id}/{name}`. An object
//! is there whole or not at all.
//!
//! ```text
//! s3.rs         the client of S3
//! links.rs      signed URLs
//! download.rs   an object as an HTTP answer
//! sweep.rs      what is deleted when
//! ```

mod download;
mod links;
mod s3;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use download::download;
pub use links::Links;
pub(crate) use links::hex;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The size of the parts that a file is sent in: S3 takes at most 10,000 parts, so files of at most 80 GB.
const PART: usize = 8 << 20;
/// The most parts of a file on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// A folder of files, or a bucket.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// Where the files are, if they are in a folder.
    folder: Option<PathBuf>,
}

/// An object as the listing has it.
pub(crate) struct Listed {
    pub key: String,
    pub size: u64,
    pub modified: DateTime<Utc>,
}

impl Storage {
    /// Opens the storage that the settings name. A folder is made; a bucket must exist.
    ///
    /// # Errors
    /// The folder cannot be made, or the address is not one of S3.
    pub fn open(settings: &Settings) -> Result<Storage> {
        match &settings.storage {
            Some(address) => Ok(Storage { store: s3::open(address)?, folder: None }),
            None => Storage::folder(&settings.data.join("files")),
        }
    }

    /// Files in a folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn folder(folder: &Path) -> Result<Storage> {
        let shown = folder.display();
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::Settings(format!("{shown}: cannot be made: {e}")))?;
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(|e| Error::Settings(format!("{shown}: {e}")))?;
        // An answer to a client is a promise: what it names survives a power cut.
        let store = store.with_fsync(true).with_automatic_cleanup(true);
        Ok(Storage { store: Arc::new(store), folder: Some(folder.to_path_buf()) })
    }

    /// Asks for an object that is not there, to find out whether the storage answers at all.
    ///
    /// # Errors
    /// The storage does not answer, or refuses the credentials.
    pub async fn check(&self) -> Result<()> {
        self.size("files/none").await.map(|_| ())
    }

    /// Stores a file. Returns its size in bytes.
    ///
    /// # Errors
    /// The file cannot be read, or the storage does not take it. Then an object with the key is as it was before.
    pub async fn put_file(&self, key: &str, path: &Path) -> Result<u64> {
        let file = tokio::fs::File::open(path).await;
        self.put_open(key, file.map_err(|e| Error::Storage(format!("{}: {e}", path.display())))?).await
    }

    /// [`Self::put_file`] of a file that is open, from where it stands.
    pub(crate) async fn put_open(&self, key: &str, mut file: tokio::fs::File) -> Result<u64> {
        let mut first = Vec::new();
        let read = (&mut file).take(PART as u64 + 1).read_to_end(&mut first).await;
        read.map_err(|e| Error::Storage(format!("{key}: {e}")))?;
        let size = first.len() as u64;
        if first.len() <= PART {
            return self.put(key, first.into()).await.map(|()| size);
        }
        let upload = self.store.put_multipart(&place(key)?).await.map_err(|e| failed(key, e))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        upload.put(first.into());
        match send_parts(&mut file, &mut upload).await {
            Ok(rest) => upload.finish().await.map(|_| size + rest).map_err(|e| failed(key, e)),
            Err(e) => {
                // The parts that arrived are not an object. Their removal is a courtesy, and the first error says more.
                let _ = upload.abort().await;
                Err(failed(key, e))
            }
        }
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// The storage does not take them.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&place(key)?, bytes.into()).await.map(|_| ()).map_err(|e| failed(key, e))
    }

    /// Writes an object to a file, which is there at the end whole or not at all. `false`: no such object.
    ///
    /// # Errors
    /// The storage does not answer, or the file cannot be written.
    pub async fn get_to(&self, key: &str, path: &Path) -> Result<bool> {
        let Some(found) = self.get(key, GetOptions::default()).await? else { return Ok(false) };
        let shown = |e: std::io::Error| Error::Storage(format!("{}: {e}", path.display()));
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut file = tokio::fs::File::create(&part).await.map_err(shown)?;
        let written = async {
            let mut parts = found.into_stream();
            while let Some(bytes) = parts.try_next().await.map_err(|e| failed(key, e))? {
                file.write_all(&bytes).await.map_err(shown)?;
            }
            file.flush().await.map_err(shown)?;
            tokio::fs::rename(&part, path).await.map_err(shown)
        };
        match written.await {
            Ok(()) => Ok(true),
            Err(e) => {
                let _ = tokio::fs::remove_file(&part).await;
                Err(e)
            }
        }
    }

    /// An object's bytes. `None`: no such object.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        match self.get(key, GetOptions::default()).await? {
            Some(found) => found.bytes().await.map(Some).map_err(|e| failed(key, e)),
            None => Ok(None),
        }
    }

    /// An object, or a part of it, that is still to be read. `None`: no such object.
    pub(crate) async fn get(&self, key: &str, options: GetOptions) -> Result<Option<GetResult>> {
        match self.store.get_opts(&place(key)?, options).await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(key, e)),
        }
    }

    /// An object's size in bytes. `None`: no such object.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn size(&self, key: &str) -> Result<Option<u64>> {
        let head = self.get(key, GetOptions::new().with_head(true)).await?;
        Ok(head.map(|found| found.meta.size))
    }

    /// The objects below a prefix, such as `trainings/abc/checkpoints`, with their sizes in bytes, in the order of their keys.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let mut listing = self.listing(prefix)?;
        while let Some(object) = listing.try_next().await? {
            found.push((object.key, object.size));
        }
        found.sort();
        Ok(found)
    }

    /// The objects below a prefix, one after the other.
    pub(crate) fn listing(
        &self,
        prefix: &str,
    ) -> Result<futures_util::stream::BoxStream<'static, Result<Listed>>> {
        let (place, prefix) = (place(prefix.trim_end_matches('/'))?, prefix.to_string());
        let listing = self.store.list(Some(&place)).map(move |found| match found {
            Ok(meta) => {
                Ok(Listed { key: meta.location.to_string(), size: meta.size, modified: meta.last_modified })
            }
            Err(e) => Err(failed(&prefix, e)),
        });
        Ok(listing.boxed())
    }

    /// Deletes an object. One that is not there is no error.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&place(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(key, e)),
        }
    }

    /// Deletes all objects below a prefix.
    ///
    /// # Errors
    /// The storage does not answer.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        for (key, _) in self.list(prefix).await? {
            self.delete(&key).await?;
        }
        // A process that was killed leaves the beginnings of files, which the listing leaves out.
        if let Some(folder) = &self.folder {
            let folder = folder.join(place(prefix.trim_end_matches('/'))?.as_ref());
            match tokio::fs::remove_dir_all(&folder).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Storage(format!("{}: {e}", folder.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Sends the rest of a file. Returns its size.
async fn send_parts(file: &mut tokio::fs::File, upload: &mut WriteMultipart) -> object_store::Result<u64> {
    let mut size = 0;
    loop {
        upload.wait_for_capacity(PARTS_AT_ONCE).await?;
        let mut bytes = bytes::BytesMut::with_capacity(1 << 20);
        let read = file.read_buf(&mut bytes).await;
        let read = read.map_err(|e| object_store::Error::Generic { store: "file", source: Box::new(e) })?;
        if read == 0 {
            return Ok(size);
        }
        size += read as u64;
        upload.put(bytes.freeze());
    }
}

/// The place of a key. The names in keys are the service's own: [`crate::inputs::file_name`] makes them of foreign ones.
fn place(key: &str) -> Result<Key> {
    let wrong = |reason: String| Error::Storage(format!("{key:?} is no key: {reason}"));
    let place = Key::parse(key).map_err(|e| wrong(e.to_string()))?;
    if place.is_root() { Err(wrong("it is empty".into())) } else { Ok(place) }
}

fn failed(key: &str, e: object_store::Error) -> Error {
    Error::Storage(format!("{key}: {e}"))
}
