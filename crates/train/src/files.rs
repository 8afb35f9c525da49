//! Files that are written whole or not at all, even if the power fails.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How the names of unfinished files begin.
pub const TEMPORARY: &str = ".calotype-";

/// Writes the file at `path` in the place of an earlier one, or of a link. The error's text does not name the path.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    written(path, write)?.persist(path).map(drop).map_err(|e| without_path(e.error))
}

/// Writes the file at `path`, unless there is something already: `false`. The error's text does not name the path.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn write_new_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<bool> {
    match written(path, write)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(without_path(e.error)),
    }
}

/// A whole file beside `path` that has no name yet.
fn written(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<tempfile::NamedTempFile> {
    let file = temporary(parent(path)).map_err(without_path)?;
    write_buffered(file.as_file(), write)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Writes to an open file by way of a buffer.
///
/// # Errors
/// The file cannot be written.
pub fn write_buffered(file: &File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = BufWriter::new(file);
    write(&mut buffered)?;
    buffered.flush()
}

/// Removes unfinished files that killed programs have left in a folder, which need not be there.
pub fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = fs::remove_file(entry.path()); // it was in no one's way
        }
    }
}

/// Makes a folder called `name` in `parent`, or the first of `name-2`, `name-3` … that is not there. Of two calls at once, each
/// makes a folder of its own.
///
/// # Errors
/// The folder cannot be made.
pub fn new_folder(parent: &Path, name: &str) -> io::Result<PathBuf> {
    if parent != Path::new("") {
        fs::create_dir_all(parent)?;
    }
    let names = std::iter::once(name.to_owned()).chain((2..).map(|n: u32| format!("{name}-{n}")));
    for name in names {
        let path = parent.join(name);
        // Not `exists`: of two that begin at once, each has its own.
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("no name is free"))
}

/// The directory that a file is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in `folder` that is removed again unless it is given a name, with the permissions of any new file.
///
/// # Errors
/// The file cannot be made.
pub fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The error without the path that `tempfile` appends to its text.
pub fn without_path(e: io::Error) -> io::Error {
    let text = e.to_string();
    match text.split_once(" at path ") {
        Some((said, _)) => io::Error::new(e.kind(), said.to_owned()),
        None => e,
    }
}
