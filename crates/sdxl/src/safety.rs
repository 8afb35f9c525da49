//! The safety checker on finished pictures.

use std::path::Path;

use calotype_models::{SafetyChecker, SafetyScores};
use calotype_tensor::{Tensor, cpu};
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb};

use crate::Error;
use crate::pipeline::Image;

/// The mean and the standard deviation of the pictures that CLIP was trained on, by channel.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A safety checker that was loaded from a folder.
pub struct Safety {
    checker: SafetyChecker,
}

impl Safety {
    /// Opens the folder of a safety checker: `config.json` and weights, as diffusers writes them.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn open(folder: &Path) -> Result<Safety, Error> {
        Ok(Safety { checker: SafetyChecker::open(folder)? })
    }

    /// The scores of a picture, in f32.
    pub fn scores(&self, image: &Image) -> SafetyScores {
        let side = self.checker.image_size();
        let pixels = clip_pixels(&image.rgb, image.width, image.height, side);
        let scores = self.checker.scores(&Tensor::from_vec(pixels, &[1, side, side, 3])).remove(0);
        cpu::trim_pool();
        scores
    }
}

/// A picture (`height` rows of `width` pixels, 3 bytes each) as CLIP's vision tower takes it, (side, side, 3): the shorter side
/// resized to `side` (bicubic), the middle cut out, normalised. This is transformers' `CLIPImageProcessor`.
///
/// # Panics
/// If `rgb` has another length than the size implies, or `side` or the picture is empty.
pub fn clip_pixels(rgb: &[u8], width: usize, height: usize, side: usize) -> Vec<f32> {
    assert_eq!(rgb.len(), 3 * width * height, "three bytes for each pixel");
    let shorter = width.min(height);
    let [w, h] = [width, height].map(|length| side * length / shorter);
    let whole = ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(width as u32, height as u32, rgb);
    let whole = whole.expect("three bytes for each pixel");
    // The cubic of Catmull and Rom is that of PIL's bicubic filter, which also widens to average when it shrinks a picture.
    let resized = imageops::resize(&whole, w as u32, h as u32, FilterType::CatmullRom);
    let (left, top) = ((w - side) / 2, (h - side) / 2);
    let pixel = |i: usize| {
        let at = resized.get_pixel((left + i % side) as u32, (top + i / side) as u32).0;
        [0, 1, 2].map(|c| (f32::from(at[c]) / 255.0 - MEAN[c]) / STD[c])
    };
    (0..side * side).flat_map(pixel).collect()
}
