//! Files of trained weights, kept between jobs: a pipeline recognises weights that it has merged by their file.
//!
//! A file is kept by what is in it, so that the same weights have the same path, wherever they came from. One that lies in the storage is also
//! found by its key there, without a look at its bytes: what has a key does not change.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The most bytes of the files that are kept beyond the last ones, which are those of present jobs.
const MAX_BYTES: u64 = 4 << 30;
const LAST: usize = 4;

/// The files.
#[derive(Clone)]
pub struct WeightsCache {
    folder: PathBuf,
    kept: Arc<Mutex<VecDeque<Kept>>>,
}

/// A file, the newest use first.
struct Kept {
    path: PathBuf,
    bytes: u64,
    /// The keys of files in the storage with these bytes.
    keys: Vec<String>,
}

impl WeightsCache {
    /// A cache in a folder, which is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: PathBuf) -> Result<WeightsCache> {
        fs::create_dir_all(&folder).map_err(|e| Error::Settings(format!("{}: {e}", folder.display())))?;
        Ok(WeightsCache { folder, kept: Arc::default() })
    }

    /// The file that is kept for the one with this key in the storage.
    pub fn of_key(&self, key: &str) -> Option<PathBuf> {
        newest(&mut self.lock(), |known| known.keys.iter().any(|known| known == key), None)
    }

    /// The file that is kept for this one, which has `key` in the storage, if it lies there: the same bytes under the same name. A new one is
    /// moved there. Reads the whole file.
    ///
    /// # Errors
    /// The file cannot be read or moved.
    pub fn keep(&self, file: &Path, key: Option<&str>) -> io::Result<PathBuf> {
        let name = file.file_name().unwrap_or_default();
        let folder = self.folder.join(sum(file)?);
        let path = folder.join(name);
        let mut kept = self.lock();
        if let Some(path) = newest(&mut kept, |known| known.path == path, key) {
            fs::remove_file(file)?;
            return Ok(path);
        }
        fs::create_dir_all(&folder)?;
        fs::rename(file, &path)?;
        let keys = key.into_iter().map(String::from).collect();
        kept.push_front(Kept { bytes: fs::metadata(&path)?.len(), path: path.clone(), keys });
        let mut bytes = 0;
        let surplus = kept.iter().skip(LAST).position(|known| {
            bytes += known.bytes;
            bytes > MAX_BYTES
        });
        if let Some(surplus) = surplus {
            for old in kept.split_off(surplus + LAST) {
                let _ = fs::remove_file(&old.path); // what a pipeline has mapped stays readable
            }
        }
        Ok(path)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that `is_it`, which becomes the newest, and gets one more key.
fn newest(kept: &mut VecDeque<Kept>, is_it: impl Fn(&Kept) -> bool, key: Option<&str>) -> Option<PathBuf> {
    let at = kept.iter().position(is_it)?;
    kept.make_contiguous()[..=at].rotate_right(1);
    let known = kept.front_mut()?;
    if let Some(key) = key.filter(|key| !known.keys.iter().any(|known| known == key)) {
        known.keys.push(key.into());
    }
    Some(known.path.clone())
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// The file cannot be read.
pub fn sum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(sum.finalize().as_slice())),
            count => sum.update(&piece[..count]),
        }
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects warm pipelines: the same weights get the same path again, under another address too; other weights, or the same under
    /// another name, which tags in prompts use, get another.
    #[test]
    fn the_same_bytes_have_the_same_path() {
        let here = tempfile::tempdir().expect("a folder");
        let cache = WeightsCache::new(here.path().join("kept")).expect("made");
        let keep_with = |name: &str, bytes: &str, key: Option<&str>| {
            let folder = tempfile::tempdir_in(here.path()).expect("a folder");
            let file = folder.path().join(name);
            fs::write(&file, bytes).expect("written");
            let kept = cache.keep(&file, key).expect("kept");
            assert_eq!(fs::read_to_string(&kept).expect("there"), bytes);
            kept
        };
        let keep = |name: &str, bytes: &str| keep_with(name, bytes, None);
        let first = keep("a.tar", "a");
        assert_eq!(keep("a.tar", "a"), first);
        assert_ne!(keep("a.tar", "b"), first);
        assert_ne!(keep("b.tar", "a"), first);
        assert_eq!(first.file_name().and_then(|name| name.to_str()), Some("a.tar"));
        assert_eq!(cache.of_key("trainings/1"), None);
        assert_eq!(keep_with("a.tar", "a", Some("trainings/1")), first);
        let other = keep_with("a.tar", "c", Some("trainings/2"));
        assert_eq!(cache.of_key("trainings/1"), Some(first));
        assert_eq!(cache.of_key("trainings/2"), Some(other));
    }
}
