//! The pictures of a set, with the mask and the caption that the set has for each.

use std::collections::{BTreeMap, HashMap};

use image::{GrayImage, RgbImage};

use super::archive::{Archive, Entry};
use super::files::Files;
use super::index::{self, Record};
use super::kind::stem;
use super::text::alone;
use super::{DatasetError, DatasetOptions, Progress, captions, check, list};
use calotype_models::shorten;
use calotype_sdxl::picture::{self, CAMERA_PIXELS, Undecoded};

/// The most bytes to which a set may unpack.
const MAX_UNPACKED: u64 = 4 << 30;
/// The most bytes of a set's prepared pictures: 2,730 of 1024 × 1024 without masks.
const MAX_PREPARED: u64 = 8 << 30;
/// The most bytes of a picture's file, more than an uncompressed picture of the most pixels has.
const MAX_FILE: u64 = 512 << 20;
/// The bytes of a file in which its header is searched before the whole file is read.
const HEADER: u64 = 64 << 10;
/// The pixels that any set may have.
const SET_PIXELS: u64 = 2_000_000_000;
/// The additional pixels for each stored byte. Photos have 1 to 20.
const PIXELS_PER_BYTE: u64 = 64;

/// The pictures of an open set.
pub(crate) struct Photos {
    archive: Archive,
    pictures: Vec<Entry>,
    /// By the stems of their pictures.
    masks: BTreeMap<String, Entry>,
    /// What is known of each picture, in the order in which they are learnt from.
    pub all: Vec<Photo>,
}

/// A picture of a set, before it is decoded.
pub(crate) struct Photo {
    /// The path in the set.
    pub name: String,
    /// The caption of the set, if there is one.
    pub caption: Option<String>,
    /// The shorter side in pixels, by the header. `None`: the header cannot be read.
    pub side: Option<u32>,
    /// What an earlier preprocessing says of the picture from which this square was cut.
    pub origin: Option<Record>,
    /// Whether the set has a mask for the picture.
    pub has_mask: bool,
    /// The picture's number among the files.
    file: usize,
}

/// A decoded picture with the mask of the set.
pub(crate) struct Decoded {
    pub picture: RgbImage,
    pub is_transparent: bool,
    pub mask: Option<GrayImage>,
    pub files: Checksums,
}

/// Checksums of a picture's file and of the file of its mask.
pub(crate) struct Checksums {
    pub picture: String,
    pub mask: Option<String>,
}

impl std::fmt::Display for Checksums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.picture, self.mask.as_deref().unwrap_or("-"))
    }
}

impl Photos {
    /// Lists the pictures of the set at `path`, and reads their captions and headers.
    ///
    /// # Errors
    /// As [`Dataset::open`](super::Dataset::open), but for the content of pictures and masks.
    pub(crate) fn open(
        path: &std::path::Path,
        settings: &DatasetOptions,
        warnings: &mut Vec<String>,
        progress: &mut Progress,
    ) -> Result<Photos, DatasetError> {
        check::prefix(settings.caption_prefix, settings.token_string)?;
        let (mut archive, mut entries) = Archive::open(path, settings.file_type, MAX_UNPACKED, progress)?;
        let origins = index::take(&mut archive, &mut entries, warnings)?;
        let mut files = Files::sort(entries, &archive.links, warnings);
        if files.pictures.is_empty() {
            return Err(DatasetError::NoPicture { reason: files.reason });
        }
        files.pictures.sort_by_key(|entry| index::position(&origins, &entry.name)); // stable: otherwise by path
        check::fits(files.pictures.len(), settings.resolution, MAX_PREPARED)?;
        let sizes = sizes(&mut archive, &files, progress)?;
        check_masks(&files, &sizes)?;
        let sides = sizes.into_iter().map(|size| size.map(|(width, height)| width.min(height)));
        let names: Vec<&str> = files.pictures.iter().map(|p| p.name.as_str()).collect();
        let mut captions = captions::assign(&mut archive, &files.sources, &names, warnings)?;
        fill_empty(&mut captions, &names, settings.caption_prefix, warnings);
        let photo = |(file, (caption, side)): (usize, (Option<String>, Option<u32>))| {
            let name = files.pictures[file].name.clone();
            let origin = origins.get(&name).map(|(_, record)| record.clone());
            Photo { has_mask: files.masks.contains_key(&stem(&name)), name, caption, side, origin, file }
        };
        let all = captions.into_iter().zip(sides).enumerate().map(photo).collect();
        Ok(Photos { archive, pictures: files.pictures, masks: files.masks, all })
    }

    /// Decodes picture `i` and its mask. The inner error says why the picture cannot be read.
    ///
    /// # Errors
    /// The archive is broken, the picture has too many pixels, or the mask cannot be read or is not of the picture's size.
    pub(crate) fn decode(&mut self, i: usize) -> Result<Result<Decoded, String>, DatasetError> {
        let entry = &self.pictures[self.all[i].file];
        let file = self.archive.read(entry, MAX_FILE)?;
        let (picture, is_transparent) = match picture::decode(&file, CAMERA_PIXELS) {
            Ok(decoded) => decoded,
            Err(Undecoded::Unreadable(reason)) => {
                return Ok(Err(format!("{} cannot be read: {reason}", shorten(&entry.name))));
            }
            Err(Undecoded::TooManyPixels(width, height, limit)) => {
                let name = shorten(&entry.name);
                return Err(DatasetError::TooManyPixels { name, width, height, limit });
            }
        };
        let mut files = Checksums { picture: index::checksum(&file), mask: None };
        drop(file);
        let Some(mask) = self.masks.get(&stem(&entry.name)) else {
            return Ok(Ok(Decoded { picture, is_transparent, mask: None, files }));
        };
        let mask_file = self.archive.read(mask, MAX_FILE)?;
        files.mask = Some(index::checksum(&mask_file));
        let mask = Some(fitting_mask(&mask.name, &mask_file, &picture)?);
        Ok(Ok(Decoded { picture, is_transparent, mask, files }))
    }

    /// Checksums of the files of picture `i` and its mask.
    ///
    /// # Errors
    /// The archive is broken.
    pub(crate) fn checksums(&mut self, i: usize) -> Result<Checksums, DatasetError> {
        let entry = &self.pictures[self.all[i].file];
        let picture = index::checksum(&self.archive.read(entry, MAX_FILE)?);
        let mask = self.masks.get(&stem(&entry.name));
        let mask = mask.map(|mask| self.archive.read(mask, MAX_FILE)).transpose()?;
        Ok(Checksums { picture, mask: mask.as_deref().map(index::checksum) })
    }

    /// The file of the mask of picture `i`.
    pub(crate) fn mask_name(&self, i: usize) -> Option<&str> {
        self.masks.get(&stem(&self.all[i].name)).map(|mask| mask.name.as_str())
    }
}

/// Width and height of each picture, then of each mask, by their headers. An error if all have more pixels than files of their size
/// plausibly have: decoding them would take hours.
fn sizes(
    archive: &mut Archive,
    files: &Files,
    progress: &mut Progress,
) -> Result<Vec<Option<(u32, u32)>>, DatasetError> {
    let limit = SET_PIXELS.saturating_add(archive.stored.saturating_mul(PIXELS_PER_BYTE));
    let (mut total, mut sizes) = (0_u64, Vec::with_capacity(files.pictures.len()));
    for entry in files.pictures.iter().chain(files.masks.values()) {
        if progress(0, files.pictures.len()).is_break() {
            return Err(DatasetError::Interrupted);
        }
        let size = match picture::stored_size(&archive.head(entry, HEADER)?, CAMERA_PIXELS) {
            Err(Undecoded::Unreadable(_)) => {
                picture::stored_size(&archive.head(entry, MAX_FILE)?, CAMERA_PIXELS)
            }
            size => size,
        };
        let size = match size {
            Ok(size) => Some(size),
            Err(Undecoded::Unreadable(_)) => None,
            Err(Undecoded::TooManyPixels(width, height, limit)) => {
                return Err(DatasetError::TooManyPixels { name: shorten(&entry.name), width, height, limit });
            }
        };
        total = total.saturating_add(size.map_or(0, |(width, height)| u64::from(width) * u64::from(height)));
        sizes.push(size);
    }
    if total <= limit { Ok(sizes) } else { Err(DatasetError::TooManyPixelsInAll { pixels: total, limit }) }
}

/// An error if a mask has another size than its picture, by their headers, whichever way up the picture is: found before anything is made.
fn check_masks(files: &Files, sizes: &[Option<(u32, u32)>]) -> Result<(), DatasetError> {
    let (pictures, masks) = sizes.split_at(files.pictures.len());
    let masks: HashMap<&str, _> =
        (files.masks.iter().zip(masks)).map(|((stem, entry), size)| (stem.as_str(), (entry, size))).collect();
    let sorted = |(width, height): (u32, u32)| (width.min(height), width.max(height));
    for (picture, size) in files.pictures.iter().zip(pictures) {
        if let (Some(size), Some((entry, Some(mask)))) = (size, masks.get(stem(&picture.name).as_str()))
            && sorted(*size) != sorted(*mask)
        {
            return Err(other_size(&entry.name, *size, *mask));
        }
    }
    Ok(())
}

/// The error of a mask that does not have the size of its picture.
fn other_size(mask: &str, (w, h): (u32, u32), (mw, mh): (u32, u32)) -> DatasetError {
    let problem = format!("expected the size of its picture, {w} × {h}, found {mw} × {mh}");
    DatasetError::mask(mask, problem)
}

/// Gives pictures whose caption is there and empty the prefix alone, with a warning.
fn fill_empty(captions: &mut [Option<String>], names: &[&str], prefix: &str, warnings: &mut Vec<String>) {
    let mut filled = Vec::new();
    for (caption, name) in captions.iter_mut().zip(names) {
        if caption.as_ref().is_some_and(String::is_empty) {
            *caption = Some(alone(prefix));
            filled.push(*name);
        }
    }
    if !filled.is_empty() {
        warnings.push(format!("the caption of {} is empty: \"{}\" is used", list(&filled), alone(prefix)));
    }
}

/// Decodes the mask in the file `name`, whose size must be that of its picture.
fn fitting_mask(name: &str, file: &[u8], picture: &RgbImage) -> Result<GrayImage, DatasetError> {
    let decoded =
        picture::decode_mask(file, CAMERA_PIXELS).map_err(|e| DatasetError::mask(name, e.to_string()))?;
    match picture.dimensions() == decoded.dimensions() {
        true => Ok(decoded),
        false => Err(other_size(name, picture.dimensions(), decoded.dimensions())),
    }
}

/// The pictures that appear twice: pairs of names, by the pictures' checksums.
#[derive(Default)]
pub(crate) struct Seen(HashMap<String, String>);

impl Seen {
    /// Adds a picture. If an earlier one has the same checksum, returns that one's name.
    pub(crate) fn add(&mut self, checksum: &str, name: &str) -> Option<String> {
        match self.0.get(checksum) {
            Some(first) => Some(first.clone()),
            None => {
                self.0.insert(checksum.to_owned(), name.to_owned());
                None
            }
        }
    }
}
