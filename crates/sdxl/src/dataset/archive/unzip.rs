//! Zip files.

use std::io::{Error, Read, Seek};
use std::path::Path;

use zip::result::ZipError;

use super::meter::Meter;
use super::{Entry, name};
use crate::config::shorten;
use crate::dataset::DatasetError;
use crate::dataset::kind::Kind;

/// The type of file in a Unix mode, and a regular file's. Archives from elsewhere leave it 0.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Reads the files of a zip that a training uses.
pub(super) fn read(path: &Path, file: impl Read + Seek, meter: &Meter) -> Result<Vec<Entry>, DatasetError> {
    let bad =
        |e: ZipError| DatasetError::open(path, format!("not a whole zip file: {}", shorten(&e.to_string())));
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    if archive.has_duplicate_names() {
        return Err(DatasetError::open(path, "two of its entries have the same name"));
    }
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        // Without its content first: whatever the entry is, its name must be in order.
        let entry = archive.by_index_raw(index).map_err(bad)?;
        let given = entry.name().map_err(bad)?.into_owned();
        let name = name::inside(&given)?;
        let mode = entry.unix_mode().unwrap_or(0) & FILE_TYPE;
        if entry.is_dir() {
            continue;
        }
        if mode != 0 && mode != REGULAR {
            let found = if entry.is_symlink() { "a symbolic link" } else { "a special file" };
            return Err(DatasetError::entry(&given, format!("expected a file, found {found}")));
        }
        drop(entry);
        let Some(kind) = Kind::of(&name) else { continue };
        let mut bytes = Vec::new();
        if kind != Kind::Other {
            let entry = archive.by_index(index).map_err(|e| meter.error(path, &given, &Error::from(e)))?;
            meter.count(entry).read_to_end(&mut bytes).map_err(|e| meter.error(path, &given, &e))?;
        }
        entries.push(Entry { name, kind, bytes });
    }
    Ok(entries)
}
