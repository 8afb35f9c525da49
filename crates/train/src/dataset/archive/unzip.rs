//! Sets in zip files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::result::ZipError;

use super::{Entry, Place, name};
use crate::dataset::DatasetError;
use crate::dataset::kind::FileKind;
use calotype_models::shorten;

pub(super) type Zip = zip::ZipArchive<BufReader<File>>;

/// The mask of the file type in a Unix mode, and the type of a regular file. Archives of other systems have 0 here.
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
        // Without its content: the name must be valid, whatever the entry is.
        let entry = archive.by_index_raw(index).map_err(bad)?;
        let given = entry.name().map_err(bad)?.into_owned();
        let name = name::inside(&given)?;
        let mode = entry.unix_mode().unwrap_or(0) & FILE_TYPE;
        // On Windows, the name of a folder may end with a backslash.
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
    // Each of them unpacks as if its bytes were its own.
    if archive.has_overlapping_entries().map_err(bad)? {
        return Err(DatasetError::open(path, "two of its entries share the same bytes"));
    }
    Ok((archive, entries))
}
