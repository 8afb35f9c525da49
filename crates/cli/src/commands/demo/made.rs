//! What preprocessing made of a picture: the square, as the contact sheet shows it, and its caption.

use std::fs;
use std::path::Path;

use calotype_sdxl::picture::{Undecoded, decode, decode_mask};
use calotype_train::run::PREPROCESSED;

use crate::failure::Failure;

/// The most pixels of a square, which has the model's own size.
const MAX_PIXELS: u64 = 1 << 20;
/// How bright a pixel stays that does not matter.
const OUTSIDE: f32 = 0.35;

/// A square of a run's preprocessed set.
pub struct Made {
    /// Rows of RGB pixels, darker where the mask is black.
    pub rgb: Vec<u8>,
    /// Width and height.
    pub size: (usize, usize),
    pub caption: String,
}

impl Made {
    /// Reads the square that the run in `run` learnt from, of the picture called `name`.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn read(run: &Path, name: &str) -> Result<Made, Failure> {
        let set = run.join(PREPROCESSED);
        let path = |ending: &str| set.join(format!("{name}{ending}"));
        let read = |path: &Path| fs::read(path).map_err(|e| Failure::io(path, &e));
        let damaged = |path: &Path, e: Undecoded| Failure::Failed(format!("{}: {}", path.display(), e));
        let (file, mask_file) = (path(".png"), path(".mask.png"));
        let (mut picture, _) = decode(&read(&file)?, MAX_PIXELS).map_err(|e| damaged(&file, e))?;
        let mask = decode_mask(&read(&mask_file)?, MAX_PIXELS).map_err(|e| damaged(&mask_file, e))?;
        for (pixel, mask) in picture.pixels_mut().zip(mask.pixels()) {
            let bright = OUTSIDE + (1.0 - OUTSIDE) * f32::from(mask.0[0]) / 255.0;
            pixel.0 = pixel.0.map(|c| (f32::from(c) * bright).round() as u8);
        }
        let caption = read(&path(".txt"))?;
        let size = (picture.width() as usize, picture.height() as usize);
        Ok(Made {
            rgb: picture.into_raw(),
            size,
            caption: String::from_utf8_lossy(&caption).trim().to_owned(),
        })
    }
}
