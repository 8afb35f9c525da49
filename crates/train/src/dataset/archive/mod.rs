//! The files of a training set in a `.zip`, a `.tar`, a `.tar.gz` or a folder. Files are listed first, and then read one at a
//! time. No named file is written. A `.tar.gz` is unpacked to an unnamed temporary file, in which files can be found again.

mod folder;
mod meter;
mod name;
mod untar;
mod unzip;

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use self::meter::Meter;
use self::unzip::Zip;
use super::kind::FileKind;
use super::{DatasetError, Progress};
use crate::dataset::FileType;
use calotype_models::shorten;

/// Bytes that identify the format: the first header of a tar.
const HEAD: usize = 512;
/// The most bytes of a file's name, as systems allow it.
const MAX_NAME: u64 = 4096;
/// The most files of a set.
const MAX_FILES: usize = 1_000_000;
/// Bytes that are unpacked between two calls of the progress callback.
const PIECE: u64 = 16 << 20;
/// The most bytes that are allocated for a file before its content is read. More is allocated as it comes.
const MAX_ROOM: u64 = 64 << 20;

/// A file of the set. Its content is read when it is needed.
#[derive(Debug)]
pub(super) struct Entry {
    /// The path inside of the set, with `/` between folders.
    pub name: String,
    /// The use of the file.
    pub kind: FileKind,
    place: Place,
}

/// The place of a file's content.
#[derive(Debug)]
enum Place {
    /// The index of the entry.
    Zip(usize),
    /// The byte range in the tar.
    Tar {
        start: u64,
        size: u64,
    },
    Path(PathBuf),
}

/// The container of a set.
pub(super) struct Archive {
    path: PathBuf,
    source: Source,
    meter: Meter,
    /// The size of the stored set, possibly compressed, in bytes.
    pub stored: u64,
    /// Links that lead out of the set's folder, which are not followed.
    pub links: Vec<String>,
}

enum Source {
    Folder,
    Zip(Box<Zip>),
    Tar(File),
}

/// The format of a file, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    Tar,
    Gzip,
}

impl Archive {
    /// Lists the files of the set at `path`, sorted by path (byte order). An archive unpacks to at most `limit` bytes.
    ///
    /// # Errors
    /// The path cannot be read; its format is unknown or not `file_type`; the archive is broken or too big; an entry is a link,
    /// a sparse file, or leads out of the archive; a name is too long; or `progress` breaks.
    pub(super) fn open(
        path: &Path,
        file_type: FileType,
        limit: u64,
        progress: &mut Progress,
    ) -> Result<(Archive, Vec<Entry>), DatasetError> {
        let io = |e: std::io::Error| DatasetError::open(path, shorten(&e.to_string()));
        let meter = Meter::new(limit);
        let metadata = std::fs::metadata(path).map_err(io)?;
        let (mut stored, mut links) = (metadata.len(), Vec::new());
        let (source, mut entries) = if metadata.is_dir() {
            check_kind(path, file_type, "a folder", file_type == FileType::Infer)?;
            let found = folder::list(path)?;
            (stored, links) = (found.bytes, found.links);
            (Source::Folder, found.entries)
        } else if metadata.is_file() {
            open_file(path, file_type, &meter, progress)?
        } else {
            return Err(DatasetError::open(path, "expected a file or a folder, found neither"));
        };
        if entries.len() > MAX_FILES {
            return Err(DatasetError::open(path, format!("expected at most {MAX_FILES} files, found more")));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(DatasetError::entry(&pair[0].name, "twice in the archive"));
        }
        Ok((Archive { path: path.to_owned(), source, meter, stored, links }, entries))
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// The file cannot be read, is cut off, is longer, or exceeds the limit of the archive.
    pub(super) fn read(&mut self, entry: &Entry, limit: u64) -> Result<Vec<u8>, DatasetError> {
        let bytes = self.take(entry, limit + 1, true)?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
        let problem = format!("expected at most {}, found more", super::error::bytes(limit));
        Err(DatasetError::entry(&entry.name, problem))
    }

    /// Reads the first bytes of a file, at most `most`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn head(&mut self, entry: &Entry, most: u64) -> Result<Vec<u8>, DatasetError> {
        self.take(entry, most, false)
    }

    fn take(&mut self, entry: &Entry, most: u64, counts: bool) -> Result<Vec<u8>, DatasetError> {
        let Archive { path, source, meter, .. } = self;
        let free = Meter::new(u64::MAX);
        let meter = if counts { &*meter } else { &free };
        let file = match &entry.place {
            Place::Path(path) => path.as_path(),
            _ => path.as_path(),
        };
        let bad = |e: std::io::Error| meter.error(file, &entry.name, &e);
        let mut bytes = Vec::new();
        let mut read = |size: u64, from: &mut dyn Read| {
            bytes.try_reserve_exact(size.min(most).min(MAX_ROOM) as usize).map_err(std::io::Error::other)?;
            from.take(most).read_to_end(&mut bytes)
        };
        match (source, &entry.place) {
            (Source::Zip(zip), Place::Zip(index)) => {
                let entry = zip.by_index(*index).map_err(|e| bad(e.into()))?;
                read(entry.size(), &mut meter.count(entry)).map_err(bad)?;
            }
            (Source::Tar(file), &Place::Tar { start, size }) => {
                file.seek(std::io::SeekFrom::Start(start)).map_err(bad)?;
                read(size, &mut file.take(size)).map_err(bad)?;
                if (bytes.len() as u64) < size.min(most) {
                    return Err(bad(untar::cut_off()));
                }
            }
            (_, Place::Path(path)) => {
                let mut file = File::open(path).map_err(bad)?;
                let size = file.metadata().map_err(bad)?.len();
                read(size, &mut file).map_err(bad)?;
            }
            _ => {}
        }
        Ok(bytes)
    }
}

/// Opens an archive and lists its files.
fn open_file(
    path: &Path,
    file_type: FileType,
    meter: &Meter,
    progress: &mut Progress,
) -> Result<(Source, Vec<Entry>), DatasetError> {
    let io = |e: std::io::Error| DatasetError::open(path, shorten(&e.to_string()));
    let mut file = File::open(path).map_err(io)?;
    let mut head = Vec::with_capacity(HEAD);
    (&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(io)?;
    file.rewind().map_err(io)?;
    match format(path, file_type, &head)? {
        Format::Zip => {
            let (zip, entries) = unzip::list(path, BufReader::new(file))?;
            Ok((Source::Zip(Box::new(zip)), entries))
        }
        Format::Tar => {
            let entries = untar::list(path, &mut file, meter)?;
            Ok((Source::Tar(file), entries))
        }
        Format::Gzip => {
            let mut unpacked = tempfile::tempfile().map_err(io)?;
            let mut packed = meter.count(MultiGzDecoder::new(BufReader::new(file)));
            let mut piece = || std::io::copy(&mut (&mut packed).take(PIECE), &mut unpacked);
            while piece().map_err(|e| meter.error(path, "not a whole tar file", &e))? > 0 {
                if progress(0, 0).is_break() {
                    return Err(DatasetError::Interrupted);
                }
            }
            // All bytes of the tar have been counted already.
            let entries = untar::list(path, &mut unpacked, &Meter::new(u64::MAX))?;
            Ok((Source::Tar(unpacked), entries))
        }
    }
}

/// The format of a file, by its content. A given type must agree with the content. If the content has no
/// signature, the name decides, so that a broken archive is reported as such.
fn format(path: &Path, file_type: FileType, head: &[u8]) -> Result<Format, DatasetError> {
    let content = sniff(head);
    let found = match content {
        Some(Format::Zip) => "a zip file",
        Some(Format::Tar) => "a tar file",
        Some(Format::Gzip) => "a gzip file",
        None if head.is_empty() => "an empty file",
        None => "something else",
    };
    let fits = match file_type {
        FileType::Zip => content == Some(Format::Zip),
        FileType::Tar => matches!(content, Some(Format::Tar | Format::Gzip)),
        FileType::Infer => true,
    };
    check_kind(path, file_type, found, fits)?;
    content.or_else(|| by_extension(path)).ok_or_else(|| {
        DatasetError::open(path, format!("expected a .zip, .tar, .tar.gz or a folder, found {found}"))
    })
}

/// An error if the path does not have the type that the request gives.
fn check_kind(path: &Path, file_type: FileType, found: &str, fits: bool) -> Result<(), DatasetError> {
    let expected = if file_type == FileType::Zip { "zip" } else { "tar" };
    let problem = || format!("expected a {expected} file, as input_images_filetype says, found {found}");
    if fits { Ok(()) } else { Err(DatasetError::open(path, problem())) }
}

fn by_extension(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    match name.rsplit_once('.')?.1 {
        "zip" => Some(Format::Zip),
        "tar" => Some(Format::Tar),
        "tgz" | "gz" => Some(Format::Gzip),
        _ => None,
    }
}

fn sniff(head: &[u8]) -> Option<Format> {
    match head {
        // A file, the end (of an empty archive), a first volume.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => Some(Format::Zip),
        [0x1f, 0x8b, ..] => Some(Format::Gzip),
        _ if head.get(257..262) == Some(b"ustar".as_slice()) || has_tar_checksum(head) => Some(Format::Tar),
        _ => None,
    }
}

/// Whether a header has the octal checksum that it states. Older tars have no other signature.
fn has_tar_checksum(head: &[u8]) -> bool {
    let Some(field) = head.get(148..156).filter(|_| head.len() == HEAD) else { return false };
    let stated = String::from_utf8_lossy(field);
    let stated = u64::from_str_radix(stated.trim_matches([' ', '\0']), 8);
    // The checksum field itself counts as eight spaces.
    let others = head[..148].iter().chain(&head[156..]).map(|&b| u64::from(b)).sum::<u64>();
    stated == Ok(others + 8 * u64::from(b' '))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::ControlFlow::Continue;

    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("an entry");
            writer.write_all(bytes).expect("written");
        }
        writer.finish().expect("a zip").into_inner()
    }

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).expect("an entry");
        }
        builder.into_inner().expect("a tar")
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("gzipped")
    }

    /// Writes an archive to a file, and reads all its files.
    fn read_bytes(bytes: &[u8], limit: u64) -> Result<Vec<Vec<u8>>, String> {
        let id = std::thread::current().id();
        let path = std::env::temp_dir().join(format!("calotype-archive-{}-{id:?}", std::process::id()));
        std::fs::write(&path, bytes).expect("written");
        let read = || -> Result<Vec<Vec<u8>>, DatasetError> {
            let (mut archive, entries) =
                Archive::open(&path, FileType::Infer, limit, &mut |_, _| Continue(()))?;
            entries.iter().map(|entry| archive.read(entry, limit)).collect()
        };
        let read = read().map_err(|e| e.to_string());
        std::fs::remove_file(&path).expect("removed");
        read
    }

    /// Protects the limit: unpacked bytes are counted, whatever the header states and however small the archive is.
    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0; 1 << 20];
        let files = [("a.png", zeros.as_slice()), ("b.png", &zeros)];
        let mut lying = zip(&files);
        // The uncompressed sizes of the local and the central headers.
        for at in 0..lying.len() - 4 {
            if lying[at..at + 4] == (1u32 << 20).to_le_bytes() {
                lying[at..at + 4].copy_from_slice(&7u32.to_le_bytes());
            }
        }
        for archive in [zip(&files), tar(&files), gz(&tar(&files))] {
            assert_eq!(
                read_bytes(&archive, 3 << 19).expect_err("too big"),
                "input_images: expected at most 1572864 bytes when unpacked, found more"
            );
            assert_eq!(read_bytes(&archive, 3 << 20).expect("enough").len(), 2);
        }
        assert!(read_bytes(&lying, 3 << 19).is_err());
        // Skipped entries of a compressed tar are unpacked too.
        let skipped = gz(&tar(&[("a.mp4", &zeros), ("b.png", b"")]));
        assert!(read_bytes(&skipped, 1 << 19).expect_err("too big").contains("when unpacked, found more"));
    }

    /// Protects against truncated archives: at every length, an error, not a panic or fewer files.
    #[test]
    fn truncated_archives_are_errors() {
        let files = [("a.png", [7; 700].as_slice()), ("b/c.txt", b"a TOK"), ("notes.doc", &[1; 100])];
        for whole in [zip(&files), tar(&files), gz(&tar(&files))] {
            assert_eq!(read_bytes(&whole, 1 << 20).expect("whole").len(), 3);
            // A tar ends with two empty blocks, and more to fill a record. Without what follows these, it is complete.
            let end = whole.len() - whole.iter().rev().take_while(|&&b| b == 0).count();
            for length in 0..end {
                let error = read_bytes(&whole[..length], 1 << 20).expect_err("cut off");
                assert!(!error.contains('\n'), "{error}");
            }
        }
    }

    /// Protects tars without the `ustar` signature: they are recognized by their checksum.
    #[test]
    fn an_old_tar_is_a_tar() {
        let mut header = tar::Header::new_old();
        header.set_path("a.txt").expect("a path");
        header.set_size(1);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, b"x".as_slice()).expect("an entry");
        assert_eq!(read_bytes(&builder.into_inner().expect("a tar"), 1 << 20).expect("read")[0], b"x");
    }
}
