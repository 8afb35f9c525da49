//! Files → examples.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use image::{GrayImage, RgbImage};

use super::archive::Entry;
use super::crop::Square;
use super::error::list;
use super::files::Files;
use super::kind::stem;
use super::picture::{self, MAX_PIXELS, Undecoded};
use super::{DatasetError, Example, Settings};
use crate::config::shorten;

/// Decodes, crops and resizes every picture, one at a time. One that cannot be decoded is warned about and left out.
///
/// # Errors
/// A picture has too many pixels, a mask does not fit, or no picture is left.
pub(super) fn examples(
    files: Files,
    captions: Vec<String>,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Vec<Example>, DatasetError> {
    let mut examples: Vec<Example> = Vec::with_capacity(files.pictures.len());
    let mut seen: HashMap<u64, String> = HashMap::new();
    let mut unreadable = None;
    for (Entry { name, bytes, .. }, caption) in files.pictures.into_iter().zip(captions) {
        let picture = match picture::decode(&bytes) {
            Ok(picture) => picture,
            Err(Undecoded::Unreadable(reason)) => {
                let reason = format!("{} cannot be read: {reason}", shorten(&name));
                unreadable.get_or_insert_with(|| reason.clone());
                warnings.push(format!("{reason} (left out)"));
                continue;
            }
            Err(Undecoded::TooManyPixels(width, height)) => {
                return Err(DatasetError::TooManyPixels {
                    name: shorten(&name),
                    width,
                    height,
                    limit: MAX_PIXELS,
                });
            }
        };
        let mask = files.masks.get(stem(&name)).map(|mask| fitting_mask(mask, &picture)).transpose()?;
        warn_about(&name, &picture, settings.resolution, &mut seen, warnings);
        let example = example(name, caption, &picture, mask.as_ref(), settings);
        if example.mask.as_ref().is_some_and(|mask| mask.iter().all(|&value| value == 0)) {
            let mask = &files.masks[stem(&example.name)].name;
            return Err(DatasetError::mask(mask, "black all over the crop: nothing to learn from"));
        }
        examples.push(example);
    }
    if examples.is_empty() { Err(DatasetError::NoPicture { reason: unreadable }) } else { Ok(examples) }
}

/// Decodes a mask, which must have its picture's size.
fn fitting_mask(mask: &Entry, picture: &RgbImage) -> Result<GrayImage, DatasetError> {
    let decoded = picture::decode_mask(&mask.bytes).map_err(|e| {
        let problem = match e {
            Undecoded::Unreadable(reason) => format!("cannot be read: {reason}"),
            Undecoded::TooManyPixels(w, h) => {
                format!("expected at most {MAX_PIXELS} pixels, found {w} × {h}")
            }
        };
        DatasetError::mask(&mask.name, problem)
    })?;
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
    settings: &Settings,
) -> Example {
    // Checked to be at most 65,535: the prepared pictures fit into memory.
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

/// Warns of a picture that has to be enlarged, or that has the same pixels as one before.
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
