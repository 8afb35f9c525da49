//! The files of a checkpoint: synced to the disk, and verified by length and CRC-32.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use calotype_tensor::io::{Mmap, open_weights};
use serde::{Deserialize, Serialize};

use calotype_models::{read_text, shorten};

const NAME: &str = "sums.json";
const MAX_BYTES: u64 = 1 << 16;
/// Bytes that are read before their memory is released. A training's forecast counts no more of a checkpoint's file.
const PIECE: usize = 1 << 20;

/// The lengths and checksums of a folder's files, by name.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Sums(BTreeMap<String, Sum>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    bytes: u64,
    crc32: u32,
}

impl Sums {
    /// Writes a file, and waits until it is on the disk.
    pub(super) fn write(
        &mut self,
        folder: &Path,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut to =
            Summed { to: BufWriter::new(File::create_new(folder.join(name))?), crc: Default::default() };
        content(&mut to)?;
        let file = to.to.into_inner()?;
        file.sync_all()?;
        self.0.insert(name.into(), Sum { bytes: file.metadata()?.len(), crc32: to.crc.sum() });
        Ok(())
    }

    /// Writes the file of checksums.
    pub(super) fn finish(self, folder: &Path) -> io::Result<()> {
        let mut file = File::create_new(folder.join(NAME))?;
        file.write_all(serde_json::to_string_pretty(&self)?.as_bytes())?;
        file.sync_all()?;
        sync_folder(folder)
    }

    /// Reads the folder's file of checksums.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(NAME);
        if !path.exists() {
            return Err(format!("{NAME}: missing"));
        }
        let text = read_text(&path, MAX_BYTES).map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map_err(|e| format!("{NAME}: {}", shorten(&e.to_string())))
    }

    /// Maps a file of at most `limit` bytes, if it is intact. The limit is for sparse files, which may have any length and
    /// would take hours to sum.
    pub(super) fn open(&self, folder: &Path, name: &str, limit: u64) -> Result<Mmap, String> {
        let sum = self.0.get(name).ok_or_else(|| format!("{NAME}: {name}: missing"))?;
        if sum.bytes > limit {
            return Err(format!("{name}: expected at most {limit} bytes, found {}", sum.bytes));
        }
        let map = open_weights(&folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
        if map.len() as u64 != sum.bytes {
            return Err(format!("{name}: expected {} bytes, found {}", sum.bytes, map.len()));
        }
        let mut crc = flate2::Crc::new();
        for (i, piece) in map.chunks(PIECE).enumerate() {
            crc.update(piece);
            map.release(i * PIECE..i * PIECE + piece.len());
        }
        if crc.sum() != sum.crc32 {
            return Err(format!("{name}: expected the CRC-32 {:08x}, found {:08x}", sum.crc32, crc.sum()));
        }
        Ok(map)
    }

    /// Whether all files exist and have their lengths.
    pub(super) fn lengths_fit(folder: &Path) -> bool {
        let fits = |(name, sum): (&String, &Sum)| {
            fs::metadata(folder.join(name)).is_ok_and(|found| found.len() == sum.bytes)
        };
        Self::read(folder).is_ok_and(|sums| !sums.0.is_empty() && sums.0.iter().all(fits))
    }
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix can open a folder as a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A writer that also computes a checksum.
struct Summed<W> {
    to: W,
    crc: flate2::Crc,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.crc.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
