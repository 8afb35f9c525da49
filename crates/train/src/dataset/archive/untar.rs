//! Sets in tar files.

use std::io::{Error, ErrorKind, Read, Seek};
use std::path::Path;

use tar::EntryType;

use super::meter::Meter;
use super::{Entry, MAX_NAME, Place, name};
use crate::dataset::DatasetError;
use crate::dataset::kind::FileKind;

/// The most bytes of the PAX records before a file: its name, times and attributes.
const MAX_NOTES: u64 = 1 << 20;

/// The error of a tar that ends early.
pub(super) fn cut_off() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "it ends early")
}

/// Lists the files of a tar. Their sizes count towards the limit of the archive.
pub(super) fn list(
    path: &Path,
    file: &mut (impl Read + Seek),
    meter: &Meter,
) -> Result<Vec<Entry>, DatasetError> {
    let bad = |e: Error| meter.error(path, "not a whole tar file", &e);
    file.rewind().map_err(bad)?; // its position is at the end after unpacking
    check_headers(file).map_err(|e| e.unwrap_or_else(bad))?;
    file.rewind().map_err(bad)?;
    let mut archive = tar::Archive::new(Watched { inner: file, ended: false });
    let mut entries = Vec::new();
    for entry in archive.entries_with_seek().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let given = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name::inside(&given)?;
        if !is_file(entry.header().entry_type(), &given)? {
            continue;
        }
        let notes = entry.pax_extensions().map_err(bad)?;
        if notes
            .is_some_and(|mut all| all.any(|n| n.is_ok_and(|n| n.key_bytes().starts_with(b"GNU.sparse."))))
        {
            return Err(sparse(&given));
        }
        meter.take(entry.size()).map_err(bad)?;
        let Some(kind) = FileKind::of(&name) else { continue };
        let place = Place::Tar { start: entry.raw_file_position(), size: entry.size() };
        entries.push(Entry { name, kind, place });
    }
    // Two empty blocks end a tar. A tar without them was cut off.
    if archive.into_inner().ended { Err(bad(cut_off())) } else { Ok(entries) }
}

/// An error if a header claims a size that would take memory before it can be checked: a long name, PAX records, or holes.
fn check_headers(file: &mut (impl Read + Seek)) -> Result<(), ErrorOr> {
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(ErrorOr::Io)?.raw(true) {
        let entry = entry.map_err(ErrorOr::Io)?;
        let name = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (what, limit) = match entry.header().entry_type() {
            EntryType::GNULongName | EntryType::GNULongLink => ("a name", MAX_NAME + 1),
            EntryType::XHeader | EntryType::XGlobalHeader => ("notes", MAX_NOTES),
            EntryType::GNUSparse => return Err(ErrorOr::Set(sparse(&name()))),
            _ => continue,
        };
        if entry.size() > limit {
            let problem = format!("expected {what} of at most {limit} bytes, found {}", entry.size());
            return Err(ErrorOr::Set(DatasetError::entry(&name(), problem)));
        }
    }
    Ok(())
}

/// A complete error, or an I/O error without its context.
enum ErrorOr {
    Set(DatasetError),
    Io(Error),
}

impl ErrorOr {
    fn unwrap_or_else(self, describe: impl Fn(Error) -> DatasetError) -> DatasetError {
        match self {
            ErrorOr::Set(error) => error,
            ErrorOr::Io(error) => describe(error),
        }
    }
}

fn sparse(name: &str) -> DatasetError {
    DatasetError::entry(name, "expected a whole file, found one with holes (make the tar without --sparse)")
}

/// A file that records whether its end was reached.
struct Watched<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let n = self.inner.read(buffer)?;
        self.ended |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: std::io::SeekFrom) -> Result<u64, Error> {
        self.inner.seek(to)
    }
}

/// Whether an entry is a file. Folders and notes about the archive are not; other kinds are errors.
fn is_file(kind: EntryType, name: &str) -> Result<bool, DatasetError> {
    let found = match kind {
        EntryType::Regular | EntryType::Continuous => return Ok(true),
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(false),
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        _ => "a special file",
    };
    Err(DatasetError::entry(name, format!("expected a file, found {found}")))
}
