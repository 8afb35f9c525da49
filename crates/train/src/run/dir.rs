//! A run's folder.
//!
//! ```text
//! settings.json            all that the run depends on; written and read by whoever takes the request
//! dataset.txt, contact_sheet.png   what the run learns from
//! preprocessed/            the set with all that was made for it, if anything was
//! metrics.jsonl, loss.png  how the run goes
//! samples/                 pictures on the way
//! checkpoints/             where the run can go on from
//! trained_model.tar        the result
//! ```
//!
//! One process at a time trains in the folder: it holds a lock on `.lock`, which the system lifts when the process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::files;

/// All that the run depends on.
pub const SETTINGS: &str = "settings.json";
/// A line of JSON for each step and each validation.
pub const METRICS: &str = "metrics.jsonl";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of pictures on the way.
pub const SAMPLES: &str = "samples";
/// The folder of the set with the masks, captions and squares that networks made.
pub const PREPROCESSED: &str = "preprocessed";
/// The result.
pub const RESULT: &str = "trained_model.tar";
const LOCK: &str = ".lock";
/// Any of these says that a folder holds a run.
const MARKS: [&str; 3] = [SETTINGS, METRICS, CHECKPOINTS];
/// The files that a run writes beside its folders.
pub const FILES: [&str; 7] =
    [SETTINGS, METRICS, RESULT, LOCK, "loss.png", "dataset.txt", "contact_sheet.png"];

/// Whether the folder at `path` holds a run.
pub fn holds_run(path: &Path) -> bool {
    MARKS.iter().any(|name| path.join(name).symlink_metadata().is_ok())
}

/// The folder of a run, which is locked until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl RunDir {
    /// Locks a folder that is there.
    ///
    /// # Errors
    /// A name in the folder that a run uses is a link, a pipe or a device, or another process is training in the folder.
    pub fn lock(path: &Path) -> Result<RunDir, Error> {
        no_links(path).map_err(|problem| Error::RunDir { path: path.into(), problem })?;
        let file = path.join(LOCK);
        let lock = File::options().create(true).append(true).open(&file);
        let lock = lock.map_err(|source| Error::Io { path: file, source })?;
        // Some network file systems have no locks: there, it is up to the user.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let problem = "another process is training in this folder".into();
            return Err(Error::RunDir { path: path.into(), problem });
        }
        Ok(RunDir { path: path.into(), _lock: Arc::new(lock) })
    }

    /// Removes unfinished files of a run that was killed.
    pub fn sweep(&self) {
        files::sweep(&self.path);
        files::sweep(&self.path.join(SAMPLES));
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives up a folder in which nothing is but the lock: it is removed.
    pub fn abandon(&self) {
        let _ = fs::remove_file(self.path.join(LOCK)); // what cannot be removed is in no one's way
        let _ = fs::remove_dir(&self.path);
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        files::write_file(&path, |to| to.write_all(bytes)).map_err(|source| Error::Io { path, source })
    }
}

/// Makes sure that what a run writes, reads or removes in its folder is its own: no link that leads elsewhere, no pipe or
/// device.
///
/// # Errors
/// The first name that is something else, with what was expected and found.
pub fn no_links(dir: &Path) -> Result<(), String> {
    FILES.iter().try_for_each(|name| expect(dir, name, false))?;
    [CHECKPOINTS, SAMPLES, PREPROCESSED].iter().try_for_each(|name| expect(dir, name, true))?;
    for checkpoint in names(&dir.join(CHECKPOINTS)) {
        let path = format!("{CHECKPOINTS}/{checkpoint}");
        // Other names are not touched.
        if checkpoint.trim_start_matches('.').starts_with("step-") {
            expect(dir, &path, true)?;
            let files = names(&dir.join(&path));
            files.iter().try_for_each(|file| expect(dir, &format!("{path}/{file}"), false))?;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// That `name` is a file, or a folder, if it is there.
fn expect(dir: &Path, name: &str, folder: bool) -> Result<(), String> {
    let expected = if folder { "a folder" } else { "a file" };
    let found = match fs::symlink_metadata(dir.join(name)) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("{name}: {e}")),
    };
    let kind = match found {
        found if found.is_symlink() => "a link, which is not followed",
        found if found.is_dir() => "a folder",
        found if found.is_file() => "a file",
        _ => "a pipe or device",
    };
    if kind == expected { Ok(()) } else { Err(format!("{name}: expected {expected}, found {kind}")) }
}
