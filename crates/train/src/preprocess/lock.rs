//! One process at a time makes a set in a folder.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::earlier::unusable_file;
use crate::dataset::DatasetError;

const LOCK: &str = ".lock";

/// A lock on a folder, which the system lifts when the process ends, however it ends. Nothing of it stays in the folder, and folders that
/// were made for it are removed if they are still empty.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
    /// The folders that were not there before, the innermost first.
    new_folders: Vec<PathBuf>,
}

impl Lock {
    /// Locks a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Another process has the lock, or the folder cannot be written to.
    pub(super) fn take(folder: &Path) -> Result<Lock, DatasetError> {
        let new_folders: Vec<PathBuf> =
            folder.ancestors().take_while(|path| !path.exists()).map(Path::to_path_buf).collect();
        let path = folder.join(LOCK);
        let io = |source: std::io::Error| DatasetError::Io { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(io)?;
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(unusable_file(&path, "expected a file, found a folder, a link or a device".into()));
        }
        let file = File::options().create(true).append(true).open(&path).map_err(io)?;
        // Some network file systems have no locks: there, it is up to the user. A file that is no longer in its place was another
        // process's.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(&file, &path) {
            return Err(unusable_file(folder, "another process is making a set in this folder".into()));
        }
        Ok(Lock { path, _file: file, new_folders })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be removed is in no one's way.
        let _ = fs::remove_file(&self.path);
        self.new_folders.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Whether an open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    file.metadata().map(identity).ok() == fs::symlink_metadata(path).map(identity).ok()
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}
