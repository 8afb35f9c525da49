//! The picture and the mask that a request gives: reading them, and fitting them to the size of the pictures to make.

mod fit;
mod mask;
mod read;

use std::fmt;
use std::sync::Arc;

use image::{GrayImage, RgbImage};

use crate::error::PictureError;
use crate::picture::{decode, decode_mask};
pub(crate) use fit::Fit;
pub use fit::size;
pub(crate) use mask::PixelMask;

/// The most pixels of a picture or mask in a request.
pub const MAX_PIXELS: u64 = 64_000_000;

/// A decoded picture of a request, upright and on white. Clones share the pixels.
#[derive(Clone, PartialEq)]
pub struct InputImage {
    /// The file, or a few words about the data.
    pub name: String,
    /// The pixels.
    pub pixels: Arc<RgbImage>,
}

/// A decoded mask of a request, upright and grey. White is painted, black is preserved. Clones share the pixels.
#[derive(Clone, PartialEq)]
pub struct InputMask {
    /// The file, or a few words about the data.
    pub name: String,
    /// The pixels.
    pub pixels: Arc<GrayImage>,
}

impl InputImage {
    /// Reads a picture. `value` is the path of a file, or a data URI with base64.
    ///
    /// # Errors
    /// The file or the URI cannot be read, or is no picture that can be decoded, or has more than [`MAX_PIXELS`] pixels. The error
    /// names the field `image`.
    pub fn read(value: &str) -> Result<InputImage, PictureError> {
        let (name, bytes) = read::bytes("image", value)?;
        InputImage::from_bytes(name, &bytes)
    }

    /// Decodes a picture's file. `name` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_bytes(name: String, file: &[u8]) -> Result<InputImage, PictureError> {
        let (pixels, _) =
            decode(file, MAX_PIXELS).map_err(|e| PictureError::new("image", &name, e.to_string()))?;
        Ok(InputImage { name, pixels: Arc::new(pixels) })
    }

    /// Width and height.
    pub fn dimensions(&self) -> (usize, usize) {
        (self.pixels.width() as usize, self.pixels.height() as usize)
    }
}

impl InputMask {
    /// Reads a mask: a picture of any kind. `value` is as for [`InputImage::read`].
    ///
    /// # Errors
    /// As [`InputImage::read`]. The error names the field `mask`.
    pub fn read(value: &str) -> Result<InputMask, PictureError> {
        let (name, bytes) = read::bytes("mask", value)?;
        InputMask::from_bytes(name, &bytes)
    }

    /// Decodes a mask's file. Colours become their luma, and transparent pixels black. `name` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_bytes(name: String, file: &[u8]) -> Result<InputMask, PictureError> {
        let pixels =
            decode_mask(file, MAX_PIXELS).map_err(|e| PictureError::new("mask", &name, e.to_string()))?;
        Ok(InputMask { name, pixels: Arc::new(pixels) })
    }
}

impl fmt::Debug for InputImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} × {})", self.name, self.pixels.width(), self.pixels.height())
    }
}

impl fmt::Debug for InputMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} × {})", self.name, self.pixels.width(), self.pixels.height())
    }
}
