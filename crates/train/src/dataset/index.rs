//! The index of a set that a preprocessing has made: what each of its squares was made from, and what a training must know of
//! the whole pictures.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::archive::{Archive, Entry};
use super::crop::Crop;
use super::error::list;
use super::kind::{FileKind, base, masked, normal};
use super::note::Note;
use super::{DatasetError, FileType};

/// The name of the index.
pub const INDEX: &str = "preprocess.json";
/// The files that are written beside the index: the report and the contact sheet.
pub const BESIDE: [&str; 2] = ["dataset.txt", "contact_sheet.png"];
/// The most bytes of an index: some 500 for each picture.
const MAX_INDEX: u64 = 64 << 20;

/// What a preprocessing knows of the set that it has made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    /// The version of calotype.
    pub calotype: String,
    /// The seed of the captions.
    pub seed: u64,
    /// The squares, in the order in which they are learnt from.
    pub pictures: Vec<Record>,
}

/// What is known of a square.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The files' path in the made set, without their extensions.
    pub name: String,
    /// The picture's path in its own set.
    pub source: String,
    /// A checksum of the picture's own file. Empty if it is not known.
    #[serde(default)]
    pub file: String,
    /// A checksum of the whole picture's pixels.
    pub pixels: String,
    /// Height and width of the whole picture, upright, in its own pixels.
    pub original_size: [usize; 2],
    /// The square in the whole picture.
    pub square: Crop,
    /// The factor by which a network enlarged the square before it was resized.
    pub upscaled: Option<u32>,
    /// Whether a part of the picture is transparent.
    pub is_transparent: bool,
    /// What a user should know of the square.
    pub notes: Vec<Note>,
    /// The networks that made the mask, enlarged the square and wrote the caption, where one did.
    pub segmenter: Option<String>,
    pub upscaler: Option<String>,
    pub captioner: Option<String>,
    /// The files.
    pub picture: MadeFile,
    pub mask: MadeFile,
    pub caption: MadeFile,
}

/// A file of the made set. All parts are empty if the set has no such file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MadeFile {
    /// A checksum of what the file was made from. A file that would be made from something else has to be made anew.
    pub from: String,
    /// The checksum of the file as it was written. A file with another one was changed by hand.
    pub checksum: String,
    /// Whether the file is the user's and must not be written.
    #[serde(skip)]
    pub by_hand: bool,
}

impl Record {
    /// Whether the numbers can be those of a square in a picture.
    pub(crate) fn is_valid(&self) -> bool {
        let Crop { top, left, side } = self.square;
        let [height, width] = self.original_size.map(|n| n as u64);
        let inside = |at: u32, length: u64| u64::from(at) + u64::from(side) <= length && length <= 1 << 31;
        side > 0 && inside(top, height) && inside(left, width)
    }
}

/// The records of each square's path, with their places in their index.
pub(super) type Origins = HashMap<String, (usize, Record)>;

/// Reads the indices among a set's files, and takes out of `entries` what a preprocessing writes beside pictures. A file of this
/// name that is something else is left. Squares that lie among other pictures are passed over, with a warning, because they were
/// made of these.
pub(super) fn take(
    archive: &mut Archive,
    entries: &mut Vec<Entry>,
    warnings: &mut Vec<String>,
) -> Result<Origins, DatasetError> {
    let (mut origins, mut folders) = (Origins::new(), Vec::new());
    for entry in entries.iter().filter(|entry| base(&entry.name) == INDEX) {
        let folder = &entry.name[..entry.name.len() - INDEX.len()];
        let Ok(Index { pictures, .. }) = serde_json::from_slice(&archive.read(entry, MAX_INDEX)?) else {
            continue;
        };
        let first = origins.len();
        let valid = pictures.into_iter().filter(Record::is_valid).enumerate();
        let path = |record: &Record| format!("{folder}{}.png", record.name);
        origins.extend(valid.map(|(i, record)| (path(&record), (first + i, record))));
        folders.push(folder.to_owned());
    }
    let inside = |name: &str| folders.iter().any(|folder| name.starts_with(folder.as_str()));
    if entries.iter().any(|entry| entry.kind == FileKind::Picture && !inside(&entry.name)) {
        entries.retain(|entry| !inside(&entry.name));
        let names: Vec<&str> = folders.iter().map(String::as_str).collect();
        if !names.is_empty() {
            let why = "squares of a preprocessing are passed over, because their pictures are there too";
            warnings.push(format!("{why}: {}", list(&names)));
        }
    }
    let is_beside = |name: &str, folder: &String| {
        name.strip_prefix(folder.as_str()).is_some_and(|rest| rest == INDEX || BESIDE.contains(&rest))
    };
    entries.retain(|entry| !folders.iter().any(|folder| is_beside(&entry.name, folder)));
    Ok(origins)
}

/// The pictures in a folder that are none of the squares of these records. Of a folder that cannot be read, none.
pub(crate) fn other_pictures(folder: &Path, records: &[Record]) -> Vec<String> {
    let progress = &mut |_, _| ControlFlow::Continue(());
    let Ok((_, entries)) = Archive::open(folder, FileType::Infer, u64::MAX, progress) else {
        return Vec::new();
    };
    let names: HashSet<String> = records.iter().map(|record| normal(&record.name)).collect();
    let is_own = |name: &str| {
        let squares = name.strip_suffix(".png").map(normal);
        squares.into_iter().chain(masked(name)).any(|square| names.contains(&square))
    };
    let pictures = entries.into_iter().filter(|entry| entry.kind == FileKind::Picture);
    pictures.map(|entry| entry.name).filter(|name| !is_own(name)).collect()
}

/// A square's place in the order of its index; others come after all squares.
pub(super) fn position(origins: &Origins, name: &str) -> usize {
    origins.get(name).map_or(usize::MAX, |(position, _)| *position)
}

/// A checksum that tells a file's content from others: its CRC-32 and its length.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    format!("{:08x}-{}", crc.sum(), bytes.len())
}
