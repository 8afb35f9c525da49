//! A read-only memory-mapped file.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file's bytes, mapped instead of read: pages come in when touched and belong to the system's file cache.
///
/// # Soundness
/// The file must not be changed or shortened while it is mapped (replacing it by renaming is fine). Rust takes borrowed bytes
/// for constant, so a change is undefined behaviour, and touching what is no longer there ends the process. No system
/// lets a program rule that out for a file that others may write. [`Mmap::open`] is not `unsafe` all the same: no caller
/// could promise more, and copying gigabytes of weights instead would double the memory that they take. The condition is
/// handed on to the user, in the documents of the program that opens the file.
#[derive(Debug)]
pub struct Mmap(memmap2::Mmap);

impl Mmap {
    /// Maps a whole regular file, which nothing may change as long as the map is there (see [`Mmap`]).
    ///
    /// # Errors
    /// The path is no regular file, or the system does not let it be read or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a file, found a folder or device",
            ));
        }
        // SAFETY: the map is read-only and lives as long as its bytes are borrowed. That no other process changes the
        // file meanwhile cannot be ensured from here; it is the documented condition of this type, as of every
        // reader of mapped weights. Bytes carry no invariant: any value is a valid `u8`.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(map))
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
                self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // Only the memory's size is at stake.
            let _ = advised;
        }
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Released pages must read the same bytes again, and wrong ranges must be harmless.
    #[test]
    fn released_pages_stay_readable() {
        let path = std::env::temp_dir().join(format!("calotype-mmap-{}", std::process::id()));
        let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = Mmap::open(&path).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        map.release(5_000..39_000);
        map.release(0..bytes.len());
        map.release(0..bytes.len() + 1);
        map.release(7..7);
        assert_eq!(&map[..], &bytes[..]);
        drop(map);
        std::fs::remove_file(&path).unwrap();
        assert!(Mmap::open(&path).is_err(), "a missing file");
        assert!(Mmap::open(&std::env::temp_dir()).is_err(), "a folder");
    }
}
