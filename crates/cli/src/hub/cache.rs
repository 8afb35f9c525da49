//! The hub's cache on this machine, in the layout of the hub's own library and of diffusers:
//!
//! ```text
//! models--OWNER--NAME/
//!   blobs/TAG                 a file; TAG.incomplete while it is being fetched
//!   snapshots/COMMIT/unet/…   a version: links to its blobs, under the files' names
//!   refs/main                 the newest version of a branch, a tag or a pull request that is here
//!   .checked/TAG              size and time of a large blob whose sum was right (ours alone)
//! .locks/models--OWNER--NAME/TAG.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::names::{Commit, ModelName, Tag};
use super::sums::Sum;
use crate::failure::Failure;
use crate::output;

/// The folder of a model in the cache.
#[derive(Debug)]
pub struct Repo {
    root: PathBuf,
    locks: PathBuf,
    revision: Revision,
}

/// Which version of a model.
#[derive(Debug)]
enum Revision {
    /// The newest one of a branch, a tag or a pull request: the file that names its commit.
    Newest(PathBuf),
    Commit(Commit),
}

impl Repo {
    pub fn new(cache: &Path, name: &ModelName) -> Repo {
        let folder = format!("models--{}", name.repo.replace('/', "--"));
        let root = cache.join(&folder);
        let newest = || Revision::Newest(root.join("refs").join(name.revision));
        let revision = name.commit().map_or_else(newest, Revision::Commit);
        Repo { revision, root, locks: cache.join(".locks").join(folder) }
    }

    /// The newest version of the revision in the cache, complete or not.
    pub fn snapshot(&self) -> Option<PathBuf> {
        let commit = match &self.revision {
            Revision::Newest(file) => Commit::parse(fs::read_to_string(file).ok()?.trim()).ok()?,
            Revision::Commit(commit) => commit.clone(),
        };
        Some(self.folder(&commit)).filter(|folder| folder.is_dir())
    }

    pub fn folder(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.to_string())
    }

    pub fn blob(&self, tag: &Tag) -> PathBuf {
        self.root.join("blobs").join(tag.to_string())
    }

    /// How many of a file's `size` bytes are not in the cache, if its blob's name is the file's sum.
    pub fn lacking(&self, size: u64, sum: Option<&Sum>) -> u64 {
        let Some(tag) = sum.and_then(|sum| Tag::parse(sum.text()).ok()) else { return size };
        let blob = self.blob(&tag);
        let part = blob.with_file_name(format!("{tag}.incomplete"));
        let there = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        size.saturating_sub(there(&blob).max(there(&part)))
    }

    /// Makes the file `name` of a version a link to its blob. Replaces whatever is there.
    pub fn link(&self, commit: &Commit, name: &str, tag: &Tag) -> Result<PathBuf, Failure> {
        let path = self.folder(commit).join(name);
        let above = "../".repeat(name.split('/').count() + 1);
        let target = PathBuf::from(format!("{above}blobs/{tag}"));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(path);
        }
        let linked = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder)?;
            // First under another name, so that a reader finds a file at any time.
            let new = folder.join(format!("{}link-{}", output::TEMPORARY, std::process::id()));
            let _ = fs::remove_file(&new); // left by a killed process of the same id
            symlink(&target, &self.blob(tag), &new)?;
            fs::rename(&new, &path)
        };
        linked().map_err(|e| Failure::io(&path, &e))?;
        Ok(path)
    }

    /// Records that `commit` is the newest version of the revision in the cache.
    pub fn set_newest(&self, commit: &Commit) -> Result<(), Failure> {
        let Revision::Newest(file) = &self.revision else { return Ok(()) };
        let text = commit.to_string();
        if fs::read_to_string(file).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let folder = file.parent().unwrap_or(file);
        fs::create_dir_all(folder).map_err(|e| Failure::io(folder, &e))?;
        output::write_bytes(file, text.as_bytes())
    }

    /// Locks a blob. `waits` is called if another process holds the lock. Closing the file releases the lock, however the
    /// process ends. On file systems without locks, there is no lock.
    pub fn lock(&self, tag: &Tag, waits: impl FnOnce()) -> Result<File, Failure> {
        let path = self.locks.join(format!("{tag}.lock"));
        fs::create_dir_all(&self.locks).map_err(|e| Failure::io(&self.locks, &e))?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|e| Failure::io(&path, &e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            waits();
            let _ = file.lock();
        }
        Ok(file)
    }

    /// Whether a blob has the checksum `sum`, or without one, the checksum that is its name. A large file that was right is
    /// recognized by its size and time, so it is read only once. If the cache cannot be written to, this cannot be recorded,
    /// and large files are accepted unchecked, like those of a model's folder: the process that fetched them has checked their
    /// sums, a process that may not write has not damaged them, and each start would read gigabytes. A truncated file is found
    /// by its header.
    pub fn is_right(&self, blob: &Path, sum: Option<&Sum>) -> bool {
        let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let sum = sum.cloned().or_else(|| Sum::sha256(name)).or_else(|| Sum::git(name));
        match sum {
            None => true,
            Some(sum @ Sum::Git(_)) => sum.holds(blob).unwrap_or(false),
            Some(sum @ Sum::Sha256(_)) => !self.is_to_check(blob) || self.check(blob, &sum),
        }
    }

    fn check(&self, blob: &Path, sum: &Sum) -> bool {
        let right = sum.holds(blob).unwrap_or(false);
        if right {
            self.note_right(blob);
        }
        right
    }

    /// Records that a blob has its checksum.
    pub fn note_right(&self, blob: &Path) {
        if let Some((note, stamp)) = self.note_of(blob) {
            // If the cache cannot be written to, large files are not checked.
            let _ = fs::create_dir_all(self.notes()).and_then(|()| fs::write(note, stamp));
        }
    }

    /// Whether a large blob must be checked: it was not checked yet, and the result can be recorded.
    pub fn is_to_check(&self, blob: &Path) -> bool {
        let can_note = || fs::create_dir_all(self.notes()).and_then(|()| tempfile::tempfile_in(self.notes()));
        !self.was_checked(blob) && can_note().is_ok()
    }

    fn notes(&self) -> PathBuf {
        self.root.join(".checked")
    }

    fn was_checked(&self, blob: &Path) -> bool {
        self.note_of(blob)
            .is_some_and(|(note, stamp)| fs::read_to_string(note).is_ok_and(|text| text == stamp))
    }

    /// The file that records that a blob is right, and its content.
    fn note_of(&self, blob: &Path) -> Option<(PathBuf, String)> {
        let found = fs::metadata(blob).ok()?;
        let time = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        Some((self.notes().join(blob.file_name()?), format!("{} {time}\n", found.len())))
    }

    /// The blob of a file of a version. `None`: the file is not a link to a blob of this model.
    pub fn blob_of(&self, file: &Path) -> Option<PathBuf> {
        let target = fs::read_link(file).ok()?;
        let blob = file.parent()?.join(target).canonicalize().ok()?;
        let blobs = self.root.join("blobs").canonicalize().ok()?;
        (blob.parent() == Some(&blobs)).then_some(blob)
    }
}

#[cfg(unix)]
fn symlink(target: &Path, _blob: &Path, new: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, new)
}

/// Other systems do not let every user make links.
#[cfg(not(unix))]
fn symlink(_target: &Path, blob: &Path, new: &Path) -> io::Result<()> {
    fs::hard_link(blob, new).or_else(|_| fs::copy(blob, new).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the check of a large blob: it is read once, and again after a change of its bytes, which is then found.
    #[test]
    fn a_blob_is_checked_once_and_after_each_change() {
        let here = tempfile::tempdir().expect("a directory");
        let repo = Repo::new(here.path(), &ModelName::parse("a/b").expect("a name"));
        let tag =
            Tag::parse("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03").expect("a tag");
        let blob = repo.blob(&tag);
        fs::create_dir_all(blob.parent().expect("a folder")).expect("made");
        fs::write(&blob, "hello\n").expect("written");
        assert!(!repo.was_checked(&blob));
        assert!(repo.is_right(&blob, None) && repo.was_checked(&blob));
        fs::write(&blob, "hallo\n\n").expect("written");
        assert!(!repo.is_right(&blob, None));
        // As in a cache that cannot be written to: nothing is recorded, and nothing is read.
        fs::remove_dir_all(repo.notes()).expect("removed");
        fs::write(repo.notes(), "").expect("written");
        assert!(!repo.is_to_check(&blob) && repo.is_right(&blob, None));
    }

    /// Protects the links of a version: each link replaces an earlier file and points to its blob, and `main` names the version.
    #[test]
    fn versions_are_links() {
        let here = tempfile::tempdir().expect("a directory");
        let repo = Repo::new(here.path(), &ModelName::parse("a/b").expect("a name"));
        let (commit, tag) = (Commit::parse("c0ffee").expect("a commit"), Tag::parse("abc").expect("a tag"));
        let blob = repo.blob(&tag);
        fs::create_dir_all(blob.parent().expect("a folder")).expect("made");
        fs::write(&blob, "hello").expect("written");
        let folder = repo.folder(&commit).join("unet");
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("config.json"), "cut").expect("written");
        assert!(repo.snapshot().is_none());
        for name in ["unet/config.json", "model_index.json"] {
            let path = repo.link(&commit, name, &tag).expect("linked");
            assert_eq!(fs::read_to_string(&path).expect("there"), "hello", "{name}");
            #[cfg(unix)]
            assert_eq!(repo.blob_of(&path), Some(blob.canonicalize().expect("there")));
        }
        repo.set_newest(&commit).expect("written");
        assert_eq!(repo.snapshot(), Some(repo.folder(&commit)));
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 1);
    }
}
