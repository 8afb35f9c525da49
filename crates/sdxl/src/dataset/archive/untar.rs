//! Tar files.

use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use tar::EntryType;

use super::meter::Meter;
use super::{Entry, name};
use crate::dataset::DatasetError;
use crate::dataset::kind::Kind;

/// Reads the files of a tar that a training uses.
pub(super) fn read(path: &Path, file: impl Read, meter: &Meter) -> Result<Vec<Entry>, DatasetError> {
    let bad = |e: Error| meter.error(path, "not a whole tar file", &e);
    let cut_off = || Error::new(ErrorKind::UnexpectedEof, "it ends early");
    // Counted below the archive, since its long names and skipped files are unpacked as well.
    let mut archive = tar::Archive::new(meter.count(file));
    let mut entries = Vec::new();
    for entry in archive.entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let given = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name::inside(&given)?;
        if !is_file(entry.header().entry_type(), &given)? {
            continue;
        }
        let Some(kind) = Kind::of(&name) else { continue };
        let mut bytes = Vec::new();
        if kind != Kind::Other {
            let size = entry.size();
            entry.read_to_end(&mut bytes).map_err(bad)?;
            if bytes.len() as u64 != size {
                return Err(bad(cut_off()));
            }
        }
        entries.push(Entry { name, kind, bytes });
    }
    let mut rest = archive.into_inner();
    // Two empty blocks end a tar. One that ended without was cut off between two files.
    if rest.ended() {
        return Err(bad(cut_off()));
    }
    // To the end, where a compressed file has its checksum.
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(bad)?;
    Ok(entries)
}

/// Whether an entry is a file, and not a folder or a note about the archive.
fn is_file(kind: EntryType, name: &str) -> Result<bool, DatasetError> {
    let found = match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => return Ok(true),
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(false),
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        _ => "a special file",
    };
    Err(DatasetError::entry(name, format!("expected a file, found {found}")))
}
