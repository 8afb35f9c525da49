//! Files of weights: read-only, mapped into memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::time::SystemTime;

/// A file's bytes, mapped instead of read: pages come in when touched and belong to the system's file cache.
#[derive(Debug)]
pub struct Mmap {
    map: memmap2::Mmap,
    file: File,
    stamp: Stamp,
}

/// Bytes and time of change: what differs after a write.
type Stamp = (u64, Option<SystemTime>);

fn stamp(file: &File) -> io::Result<Stamp> {
    let found = file.metadata()?;
    Ok((found.len(), found.modified().ok()))
}

/// Maps a file of weights, as [`Mmap::open`], without `unsafe`.
///
/// No caller could promise what [`Mmap::open`] asks for: no system lets a program rule out that another one changes a file
/// (locks bind only those who ask for them), and copying gigabytes of weights would double the memory that they take. The
/// promise is therefore the user's, to whom the program's documents hand it on. What can be done against a broken one is
/// done: the file is opened for reading alone, and the reader asks [`Mmap::is_unchanged`] when the values have been taken, so
/// that what was written over meanwhile ends in an error, not in other weights without a word. (A file that is cut short ends the
/// process when the missing part is touched.)
///
/// # Errors
/// As [`Mmap::open`].
pub fn open_weights(path: &Path) -> io::Result<Mmap> {
    // SAFETY: nobody changes the file as long as it is mapped: the user's promise, see above.
    unsafe { Mmap::open(path) }
}

impl Mmap {
    /// Maps a whole regular file.
    ///
    /// # Safety
    /// Nothing may change or shorten the file as long as the map is there; another file may take its place by renaming. Rust takes
    /// borrowed bytes for constant, so that a change is undefined behaviour, and touching what is no longer there ends the
    /// process.
    ///
    /// # Errors
    /// The path is no regular file, or the system does not let it be read or mapped.
    pub unsafe fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a file, found a folder or device",
            ));
        }
        let stamp = stamp(&file)?;
        // SAFETY: the map is read-only and lives as long as its bytes are borrowed; the caller sees to it that they stay the
        // same. Bytes carry no invariant: any value is a valid `u8`.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map, file, stamp })
    }

    /// Whether the file still has the size and the time of change that it had when it was opened.
    pub fn is_unchanged(&self) -> bool {
        stamp(&self.file).is_ok_and(|now| now == self.stamp)
    }

    /// Gives the memory of pages in `range` (bytes) back, as they will not be needed soon. They stay readable, from
    /// the file. A range outside of the file, or a system without such a call, does nothing.
    pub fn release(&self, range: Range<usize>) {
        if range.start >= range.end || range.end > self.len() {
            return;
        }
        #[cfg(unix)]
        {
            // SAFETY: the pages are of a file, mapped read-only and so never written: dropped pages read the same
            // bytes again from it. The range is inside the map.
            let advised = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // Only the memory's size is at stake.
            let _ = advised;
        }
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: released pages read the same bytes again, wrong ranges are harmless, and a write is noticed.
    #[test]
    fn released_pages_stay_readable() {
        let path = std::env::temp_dir().join(format!("calotype-mmap-{}", std::process::id()));
        let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = open_weights(&path).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        map.release(5_000..39_000);
        map.release(0..bytes.len());
        map.release(0..bytes.len() + 1);
        map.release(7..7);
        assert_eq!(&map[..], &bytes[..]);
        assert!(map.is_unchanged());
        // A writer's mark, without a write: that would be undefined behaviour.
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!map.is_unchanged());
        drop(map);
        std::fs::remove_file(&path).unwrap();
        assert!(open_weights(&path).is_err(), "a missing file");
        assert!(open_weights(&std::env::temp_dir()).is_err(), "a folder");
    }
}
