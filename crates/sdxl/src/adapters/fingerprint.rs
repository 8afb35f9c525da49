//! Whether files are the same as when they were read.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::source;

/// The least age of a settled file. A younger file may be written again without any visible difference.
const UNSETTLED: Duration = Duration::from_secs(2);

/// Identifies the state of files without reading them. Two fingerprints are the same only if no file can have changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    files: Vec<File>,
    scales: Vec<f64>,
    settled: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct File {
    path: PathBuf,
    size: u64,
    /// The time of the last change, if the system has it. Unlike the time of modification, it is not preserved by a copy.
    changed: Option<SystemTime>,
    /// Device and inode.
    identity: [u64; 2],
}

impl Fingerprint {
    /// The fingerprint of the files' current state, and of their scales.
    pub fn of(files: &[PathBuf], scales: &[f64]) -> Self {
        let files: Vec<File> = files.iter().flat_map(|path| source::files(path)).map(File::of).collect();
        let now = SystemTime::now();
        let old = |file: &File| {
            file.changed.and_then(|at| now.duration_since(at).ok()).is_some_and(|age| age > UNSETTLED)
        };
        let settled = files.iter().filter(|file| file.changed.is_some()).all(old);
        Self { files, scales: scales.to_vec(), settled }
    }

    /// Whether this can be the same as a later fingerprint.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether weights that were loaded for `self` are the ones that `now` describes.
    pub fn is_same_as(&self, now: &Self) -> bool {
        self.settled && self == now
    }
}

impl File {
    fn of(path: PathBuf) -> Self {
        let Ok(found) = std::fs::metadata(&path) else {
            return Self { path, size: 0, changed: None, identity: [0; 2] };
        };
        #[cfg(unix)]
        let (changed, identity) = {
            use std::os::unix::fs::MetadataExt;
            let since = Duration::new(found.ctime().max(0) as u64, found.ctime_nsec() as u32);
            (SystemTime::UNIX_EPOCH.checked_add(since), [found.dev(), found.ino()])
        };
        #[cfg(not(unix))]
        let (changed, identity) = (found.modified().ok(), [0; 2]);
        Self { path, size: found.len(), changed, identity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects against a stale denoiser. A file that was just written may change again within a tick of the clock. A file that
    /// has settled, is unchanged and has the same scale is the same.
    #[test]
    fn only_what_cannot_have_changed_is_the_same() {
        let of = |path: &str, scale| Fingerprint::of(&[PathBuf::from(path)], &[scale]);
        let settled = env!("CARGO_MANIFEST_DIR").to_string() + "/../sdxl/tests/golden/tiny_vocab/vocab.json";
        let new = std::env::temp_dir().join(format!("calotype-fingerprint-{}", std::process::id()));
        std::fs::write(&new, "x").expect("written");
        let new = new.to_str().expect("text");
        assert!(!of(new, 1.0).is_same_as(&of(new, 1.0)), "just written");
        std::fs::remove_file(new).expect("removed");
        let age = std::fs::metadata(&settled).and_then(|found| found.modified()).expect("there").elapsed();
        if age.is_ok_and(|age| age > 2 * UNSETTLED) {
            assert!(of(&settled, 1.0).is_same_as(&of(&settled, 1.0)));
        }
        assert!(!of(&settled, 1.0).is_same_as(&of(&settled, 0.5)), "another scale");
        assert!(!of(&settled, 1.0).is_same_as(&Fingerprint::of(&[], &[])), "other files");
    }
}
