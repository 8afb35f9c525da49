//! A run's folder.
//!
//! ```text
//! settings.json            all that the run depends on
//! dataset.txt, contact_sheet.png   what it learns from
//! metrics.jsonl, loss.png  how it goes
//! samples/                 pictures on the way
//! checkpoints/             where it can go on from
//! trained_model.tar        the result
//! ```
//!
//! One process at a time trains in it: it holds a lock on `.lock`, which the system lifts when it ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check;
use super::record::Record;
use crate::failure::Failure;
use crate::output;

pub const SETTINGS: &str = "settings.json";
pub const METRICS: &str = "metrics.jsonl";
pub const CHECKPOINTS: &str = "checkpoints";
pub const SAMPLES: &str = "samples";
pub const RESULT: &str = "trained_model.tar";
const LOCK: &str = ".lock";
/// Any of these says that a folder holds a run.
const MARKS: [&str; 3] = [SETTINGS, METRICS, CHECKPOINTS];
/// What a run writes beside its folders.
pub const FILES: [&str; 7] =
    [SETTINGS, METRICS, RESULT, LOCK, "loss.png", "dataset.txt", "contact_sheet.png"];

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: Arc<File>,
}

impl RunDir {
    /// Makes sure, before any work is done, that a new run can have its folder.
    ///
    /// # Errors
    /// There is a run in it already, or it cannot be written to.
    pub fn check(asked: Option<&Path>) -> Result<(), Failure> {
        let Some(path) = asked else { return output::check_folder("--run-dir", Path::new("runs")) };
        if MARKS.iter().any(|name| path.join(name).symlink_metadata().is_ok()) {
            let path = path.display();
            let problem = "holds a run already: go on with --resume, or take another folder";
            return Err(Failure::BadInput(format!("--run-dir {path}: {problem}")));
        }
        output::check_folder("--run-dir", path)?;
        check::no_links(path).map_err(|e| Failure::BadInput(format!("--run-dir {}: {e}", path.display())))
    }

    /// Makes the folder of a new run: `asked`, or one called after the set.
    ///
    /// # Errors
    /// It cannot be made, or another process has begun a run in it in the meantime.
    pub fn make(asked: Option<&Path>, set: &Path) -> Result<RunDir, Failure> {
        let Some(path) = asked else {
            return Self::lock("--run-dir", &output::new_folder(Path::new("runs"), &set_name(set))?);
        };
        fs::create_dir_all(path).map_err(|e| Failure::io(path, &e))?;
        let dir = Self::lock("--run-dir", path)?;
        Self::check(asked)?;
        Ok(dir)
    }

    fn lock(option: &str, path: &Path) -> Result<RunDir, Failure> {
        check::no_links(path).map_err(|e| Failure::BadInput(format!("{option} {}: {e}", path.display())))?;
        let file = path.join(LOCK);
        let lock =
            File::options().create(true).append(true).open(&file).map_err(|e| Failure::io(&file, &e))?;
        // Some network file systems have no locks: there, it is up to the user.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let problem = "another process is training in this folder";
            return Err(Failure::BadInput(format!("{option} {}: {problem}", path.display())));
        }
        Ok(RunDir { path: path.into(), _lock: Arc::new(lock) })
    }

    /// The folder of a run that is there, and its settings.
    ///
    /// # Errors
    /// There are no settings in it that a training can have, something in it is a link, or another process is training
    /// in it.
    pub fn open(path: &Path) -> Result<(RunDir, Record), Failure> {
        let bad = |what: String| Failure::BadInput(format!("--resume {}: {what}", path.display()));
        check::no_links(path).map_err(bad)?;
        let record = check::settings(path).map_err(bad)?;
        output::check_folder("--resume", path)?;
        Ok((Self::lock("--resume", path)?, record))
    }

    /// Removes what a run that was killed has left unfinished.
    pub fn sweep(&self) {
        output::sweep(&self.path);
        output::sweep(&self.path.join(SAMPLES));
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        output::write_bytes(&self.path.join(name), bytes)
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_settings(&self, record: &Record) -> Result<(), Failure> {
        let json =
            serde_json::to_string_pretty(record).map_err(|e| Failure::Failed(format!("{SETTINGS}: {e}")))?;
        self.write(SETTINGS, format!("{json}\n").as_bytes())
    }
}

/// `photos.zip` → `photos`, `photos.tar.gz` → `photos`, and a folder's name.
fn set_name(set: &Path) -> String {
    let full = set.canonicalize().unwrap_or_else(|_| set.into());
    let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let endings = [".zip", ".tar.gz", ".tgz", ".tar"];
    let ending = endings.iter().find(|ending| name.to_ascii_lowercase().ends_with(*ending));
    let name = match ending.filter(|_| full.is_file()) {
        // The endings are ASCII: what is before them ends where a character does.
        Some(ending) => name[..name.len() - ending.len()].to_owned(),
        None => name,
    };
    if name.is_empty() { "run".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a run is called after its set, whatever that is.
    #[test]
    fn runs_are_called_after_their_sets() {
        let here = tempfile::tempdir().expect("a directory");
        for (file, name) in
            [("photos.zip", "photos"), ("a.b.tar.gz", "a.b"), ("猫.TAR", "猫"), (".zip", "run"), ("x", "x")]
        {
            let path = here.path().join(file);
            fs::write(&path, "").expect("written");
            assert_eq!(set_name(&path), name);
        }
        let folder = here.path().join("set.zip.d");
        fs::create_dir(&folder).expect("made");
        assert_eq!(set_name(&folder), "set.zip.d");
    }
}
