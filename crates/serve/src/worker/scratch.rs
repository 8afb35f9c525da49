//! The worker's own folder on disk, for the files of the jobs in hand. It goes with the worker; that of a killed one goes with the next.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::job::Job;

const FOLDER: &str = "work";
const LOCK: &str = ".lock";

/// The folder of this worker, which holds a lock in it.
pub struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes the folder in `data`, and removes those of workers that are gone.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(data: &Path) -> Result<Scratch> {
        let parent = data.join(FOLDER);
        let failed = |e: std::io::Error| Error::Settings(format!("{}: {e}", parent.display()));
        fs::create_dir_all(&parent).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix("worker-").tempdir_in(&parent).map_err(failed)?;
        let lock = File::create(folder.path().join(LOCK)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let others = fs::read_dir(&parent).into_iter().flatten().flatten().map(|entry| entry.path());
        others.filter(|path| path != folder.path()).for_each(|path| remove_if_left(&path));
        Ok(Scratch { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// An empty folder for the files of a job, which goes when it is dropped.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, job: &Job) -> Result<TempDir> {
        let made = tempfile::Builder::new().prefix(job.made.kind.name()).tempdir_in(self.path());
        made.map_err(|e| Error::Settings(format!("{}: {e}", self.path().display())))
    }
}

/// Removes the folder of a worker that is gone: its lock is free. A folder without a lock is being made.
fn remove_if_left(path: &Path) {
    let lock: PathBuf = path.join(LOCK);
    let Ok(file) = File::options().write(true).open(lock) else { return };
    if file.try_lock().is_ok() {
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the disk, and other workers: the folder of a worker that was killed goes, that of one at work stays.
    #[test]
    fn what_is_left_goes() {
        let data = tempfile::tempdir().expect("a folder");
        let first = Scratch::open(data.path()).expect("opened");
        let killed = data.path().join(FOLDER).join("worker-killed");
        fs::create_dir(&killed).expect("made");
        fs::write(killed.join(LOCK), "").expect("written");
        fs::write(killed.join("large"), "large").expect("written");
        let second = Scratch::open(data.path()).expect("opened");
        assert!(!killed.exists());
        assert!(first.path().is_dir() && second.path().is_dir());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }
}
