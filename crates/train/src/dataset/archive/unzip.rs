//! Zip files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::result::ZipError;

use super::{Entry, Place, name};
use crate::dataset::DatasetError;
use crate::dataset::kind::FileKind;
use calotype_models::shorten;

pub(super) type Zip = zip::ZipArchive<BufReader<File>>;

/// The type of file in a Unix mode, and a regular file's. Archives from elsewhere leave it 0.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Lists the files of a zip.
pub(super) fn list(path: &Path, file: BufReader<File>) -> Result<(Zip, Vec<Entry>), DatasetError> {
    let bad =
        |e: ZipError| DatasetError::open(path, format!("not a whole zip file: {}", shorten(&e.to_string())));
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    if archive.has_duplicate_names() {
        return Err(DatasetError::open(path, "two of its entries have the same name"));
    }
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        // Without its content: whatever the entry is, its name must be in order.
        let entry = archive.by_index_raw(index).map_err(bad)?;
        let given = entry.name().map_err(bad)?.into_owned();
        let name = name::inside(&given)?;
        let mode = entry.unix_mode().unwrap_or(0) & FILE_TYPE;
        // Windows may end a folder's name with its own separator.
        if entry.is_dir() || given.ends_with('\\') {
            continue;
        }
        if mode != 0 && mode != REGULAR {
            let found = if entry.is_symlink() { "a symbolic link" } else { "a special file" };
            return Err(DatasetError::entry(&given, format!("expected a file, found {found}")));
        }
        let Some(kind) = FileKind::of(&name) else { continue };
        entries.push(Entry { name, kind, place: Place::Zip(index) });
    }
    // Each unpacks to as much as if it had bytes of its own.
    if archive.has_overlapping_entries().map_err(bad)? {
        return Err(DatasetError::open(path, "two of its entries share the same bytes"));
    }
    Ok((archive, entries))
}
