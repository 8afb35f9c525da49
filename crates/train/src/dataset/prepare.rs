//! Prepares examples from a set's files.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use image::{GrayImage, RgbImage};

use super::archive::{Archive, Entry};
use super::crop::Square;
use super::error::list;
use super::files::Files;
use super::kind::stem;
use super::{DatasetError, DatasetOptions, Example, Progress};
use calotype_models::shorten;
use calotype_sdxl::picture::{self, CAMERA_PIXELS, Undecoded};

/// The most bytes of a picture's file, more than an uncompressed picture of the most pixels has.
const MAX_FILE: u64 = 512 << 20;
/// The bytes of a file in which its header is searched before the whole file is read.
const HEADER: u64 = 64 << 10;
/// The pixels that any set may have.
const SET_PIXELS: u64 = 2_000_000_000;
/// The additional pixels for each stored byte. Photos have 1 to 20.
const PIXELS_PER_BYTE: u64 = 64;

/// An error if all pictures and masks have more pixels, by their headers, than files of their size plausibly have. Decoding
/// them would take hours.
pub(super) fn check_pixels(
    archive: &mut Archive,
    files: &Files,
    progress: &mut Progress,
) -> Result<(), DatasetError> {
    let limit = SET_PIXELS.saturating_add(archive.stored.saturating_mul(PIXELS_PER_BYTE));
    let mut total = 0_u64;
    for entry in files.pictures.iter().chain(files.masks.values()) {
        if progress(0, files.pictures.len()).is_break() {
            return Err(DatasetError::Interrupted);
        }
        let pixels = match picture::pixels(&archive.head(entry, HEADER)?, CAMERA_PIXELS) {
            Err(Undecoded::Unreadable(_)) => picture::pixels(&archive.head(entry, MAX_FILE)?, CAMERA_PIXELS),
            pixels => pixels,
        };
        total = total.saturating_add(match pixels {
            Ok(pixels) => pixels,
            Err(Undecoded::Unreadable(_)) => 0,
            Err(Undecoded::TooManyPixels(width, height, limit)) => {
                return Err(DatasetError::TooManyPixels { name: shorten(&entry.name), width, height, limit });
            }
        });
    }
    if total <= limit { Ok(()) } else { Err(DatasetError::TooManyPixelsInAll { pixels: total, limit }) }
}

/// Reads, decodes, crops and resizes the pictures, one at a time. `progress` is called before each with the number of pictures
/// that are done. A picture that cannot be decoded is left out, with a warning.
///
/// # Errors
/// A picture has too many pixels, a mask does not fit or is black, no picture is left, or `progress` breaks.
pub(super) fn examples(
    archive: &mut Archive,
    files: Files,
    captions: Vec<String>,
    settings: &DatasetOptions,
    warnings: &mut Vec<String>,
    progress: &mut Progress,
) -> Result<Vec<Example>, DatasetError> {
    let count = files.pictures.len();
    let mut examples: Vec<Example> = Vec::with_capacity(count);
    let mut seen: HashMap<u64, String> = HashMap::new();
    let (mut unreadable, mut transparent) = (None, Vec::new());
    for (done, (entry, caption)) in files.pictures.into_iter().zip(captions).enumerate() {
        if progress(done, count).is_break() {
            return Err(DatasetError::Interrupted);
        }
        let decoded = picture::decode(&archive.read(&entry, MAX_FILE)?, CAMERA_PIXELS);
        let name = entry.name;
        let picture = match decoded {
            Ok((picture, is_transparent)) => {
                transparent.extend(is_transparent.then(|| name.clone()));
                picture
            }
            Err(Undecoded::Unreadable(reason)) => {
                let reason = format!("{} cannot be read: {reason}", shorten(&name));
                unreadable.get_or_insert_with(|| reason.clone());
                warnings.push(format!("{reason} (left out)"));
                continue;
            }
            Err(Undecoded::TooManyPixels(width, height, limit)) => {
                return Err(DatasetError::TooManyPixels { name: shorten(&name), width, height, limit });
            }
        };
        let mask = files.masks.get(&stem(&name));
        let decoded = mask.map(|mask| fitting_mask(archive, mask, &picture)).transpose()?;
        warn_about(&name, &picture, settings.resolution, &mut seen, warnings);
        let example = example(name, caption, &picture, decoded.as_ref(), settings);
        if let Some(mask) = mask.filter(|_| example.mask.iter().flatten().all(|&value| value == 0)) {
            return Err(DatasetError::mask(&mask.name, "black all over the crop: nothing to learn from"));
        }
        examples.push(example);
    }
    if !transparent.is_empty() {
        let names: Vec<&str> = transparent.iter().map(String::as_str).collect();
        warnings.push(format!("transparent parts are learnt as white: {}", list(&names)));
    }
    if examples.is_empty() { Err(DatasetError::NoPicture { reason: unreadable }) } else { Ok(examples) }
}

/// Reads and decodes a mask, whose size must be that of its picture.
fn fitting_mask(archive: &mut Archive, mask: &Entry, picture: &RgbImage) -> Result<GrayImage, DatasetError> {
    let decoded = picture::decode_mask(&archive.read(mask, MAX_FILE)?, CAMERA_PIXELS)
        .map_err(|e| DatasetError::mask(&mask.name, e.to_string()))?;
    let ((w, h), (mw, mh)) = (picture.dimensions(), decoded.dimensions());
    if (w, h) != (mw, mh) {
        let problem = format!("expected the size of its picture, {w} × {h}, found {mw} × {mh}");
        return Err(DatasetError::mask(&mask.name, problem));
    }
    Ok(decoded)
}

fn example(
    name: String,
    caption: String,
    picture: &RgbImage,
    mask: Option<&GrayImage>,
    settings: &DatasetOptions,
) -> Example {
    // At most 65,535, because the prepared pictures fit into memory.
    let resolution = settings.resolution as u32;
    let square = Square::choose(picture.dimensions(), mask.filter(|_| settings.crop_based_on_salience));
    Example {
        name,
        caption,
        rgb: square.picture(picture, resolution).into_raw(),
        mask: mask.map(|mask| square.mask(mask, resolution).into_raw()),
        original_size: [picture.height() as usize, picture.width() as usize],
        crop_top_left: square.top_left(settings.resolution),
    }
}

/// Warns about a picture that must be enlarged, or that equals an earlier one.
fn warn_about(
    name: &str,
    picture: &RgbImage,
    resolution: usize,
    seen: &mut HashMap<u64, String>,
    warnings: &mut Vec<String>,
) {
    let (width, height) = picture.dimensions();
    if (width.min(height) as usize) < resolution {
        warnings
            .push(format!("{}: {width} × {height} is smaller than {resolution}: enlarged", shorten(name)));
    }
    let mut hasher = DefaultHasher::new();
    (width, height, picture.as_raw()).hash(&mut hasher);
    match seen.get(&hasher.finish()) {
        Some(first) => warnings.push(format!("the same picture twice: {}", list(&[first, name]))),
        None => {
            seen.insert(hasher.finish(), name.to_owned());
        }
    }
}
