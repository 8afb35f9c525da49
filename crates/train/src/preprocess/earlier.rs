//! A set that a preprocessing has made: its index, and which of its files are still as they were made.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path};

use crate::dataset::DatasetError;
use crate::dataset::index::{self, INDEX, Index, Record};

/// The most bytes of a file of a made set.
const MAX_FILE: u64 = 512 << 20;

/// A made set.
pub(super) struct Earlier {
    pub index: Index,
    /// The places of records by the paths of their pictures, and by their own names in small letters.
    by_source: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
}

/// What is known of a file of a made set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    /// As a preprocessing has written it.
    AsWritten,
    /// Not, or no longer, as a preprocessing has written it: the user's. Its content.
    ByHand(Vec<u8>),
}

impl Earlier {
    /// Reads the index in `folder`. `None`: there is none.
    ///
    /// # Errors
    /// The index is damaged.
    pub(super) fn open(folder: &Path) -> Result<Option<Earlier>, DatasetError> {
        let Some(bytes) = read(folder, INDEX)? else { return Ok(None) };
        let mut index: Index = serde_json::from_slice(&bytes).map_err(|e| {
            unusable_file(&folder.join(INDEX), format!("expected the index of a preprocessing: {e}"))
        })?;
        index.pictures.retain(|record| record.is_valid() && is_inside(&record.name));
        let places = |key: fn(&Record) -> String| {
            index.pictures.iter().enumerate().map(|(i, record)| (key(record), i)).collect()
        };
        let by_source = places(|record| record.source.clone());
        let by_name = places(|record| record.name.to_lowercase());
        Ok(Some(Earlier { index, by_source, by_name }))
    }

    /// The record of the picture at `source`.
    pub(super) fn record(&self, source: &str) -> Option<&Record> {
        self.by_source.get(source).map(|&place| &self.index.pictures[place])
    }

    /// The record of the files called `name`, in whatever case.
    pub(super) fn named(&self, name: &str) -> Option<&Record> {
        self.by_name.get(&name.to_lowercase()).map(|&place| &self.index.pictures[place])
    }
}

/// Whether a path leads to a file below the folder that it is taken from.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether the file `name` in `folder` has the content that was written, by its checksum.
///
/// # Errors
/// The file cannot be read.
pub(super) fn found(folder: &Path, name: &str, checksum: Option<&str>) -> Result<Found, DatasetError> {
    Ok(match read(folder, name)? {
        None => Found::Missing,
        Some(bytes) if Some(&*index::checksum(&bytes)) == checksum => Found::AsWritten,
        Some(bytes) => Found::ByHand(bytes),
    })
}

/// The content of the file `name` in `folder`. `None`: there is none.
///
/// # Errors
/// It cannot be read, or it is no file, or a link leads out of the folder.
pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, DatasetError> {
    let path = folder.join(name);
    let io = |e: std::io::Error| unusable_file(&path, e.to_string());
    let kind = match fs::symlink_metadata(&path) {
        Ok(found) => found.file_type(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let real = |path: &Path| path.canonicalize().map_err(io);
    if !kind.is_file() || !real(&path)?.starts_with(real(folder)?) {
        return Err(unusable_file(
            &path,
            "expected a file of this folder, found a folder, a link or a device".into(),
        ));
    }
    let mut bytes = Vec::new();
    File::open(&path).map_err(io)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable_file(&path, format!("expected at most {MAX_FILE} bytes, found more")));
    }
    Ok(Some(bytes))
}

/// The error of a file of a made set.
pub(super) fn unusable_file(path: &Path, problem: String) -> DatasetError {
    DatasetError::MadeSet { path: path.display().to_string(), problem }
}
