//! Decoding pictures and masks, whatever they are stored as.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage};

use crate::config::shorten;

/// The most pixels of a picture: a little more than the largest cameras take.
pub(super) const MAX_PIXELS: u64 = 200_000_000;
/// The most that a decoder may allocate: twice a picture of that size with four channels of 16 bits would be 3 GB.
const MAX_ALLOC: u64 = 3 << 30;

/// Why a picture was not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undecoded {
    /// More than [`MAX_PIXELS`]: width and height.
    TooManyPixels(u32, u32),
    /// What the decoder says, in one line.
    Unreadable(String),
}

/// A picture as sRGB: upright, transparency on white, 8 bits. Colour profiles are not applied.
pub(super) fn decode(file: &[u8]) -> Result<RgbImage, Undecoded> {
    let picture = upright(file)?;
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8());
    }
    let rgba = picture.into_rgba8();
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        Rgb([r, g, b].map(|c| over(c, 255, a)))
    }))
}

/// A mask as grey, upright: the luma of what has colours. What is transparent counts as black: it is cut out.
pub(super) fn decode_mask(file: &[u8]) -> Result<GrayImage, Undecoded> {
    let mask = upright(file)?;
    if !mask.color().has_alpha() {
        return Ok(mask.into_luma8());
    }
    let mask = mask.into_luma_alpha8();
    Ok(GrayImage::from_fn(mask.width(), mask.height(), |x, y| {
        let [grey, a] = mask.get_pixel(x, y).0;
        [over(grey, 0, a)].into()
    }))
}

/// `colour` of opacity `alpha` over `ground`, rounded.
fn over(colour: u8, ground: u8, alpha: u8) -> u8 {
    let (c, g, a) = (u32::from(colour), u32::from(ground), u32::from(alpha));
    ((c * a + g * (255 - a) + 127) / 255) as u8
}

/// Decodes by content, the first frame of several, and turns it as its EXIF says.
fn upright(file: &[u8]) -> Result<DynamicImage, Undecoded> {
    let unreadable = |e: image::ImageError| Undecoded::Unreadable(shorten(&e.to_string()));
    let mut reader = ImageReader::new(Cursor::new(file));
    reader.no_limits();
    let reader = reader.with_guessed_format().map_err(|e| unreadable(e.into()))?;
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Undecoded::TooManyPixels(width, height));
    }
    if width == 0 || height == 0 {
        return Err(Undecoded::Unreadable("it has no pixels".into()));
    }
    if !jpeg_is_whole(file) {
        return Err(Undecoded::Unreadable("the file ends early".into()));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    decoder.set_limits(limits).map_err(unreadable)?;
    // A broken EXIF says nothing about the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Whether a JPEG has its end marker; true of other files. The decoder fills what is missing with grey and says nothing.
fn jpeg_is_whole(file: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    if !file.starts_with(&[0xff, 0xd8]) {
        return true;
    }
    // Over the segments before the picture itself, in which there may be a whole JPEG as a thumbnail.
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = file.get(at..at + 4) {
        match marker {
            // Fill bytes.
            0xff => at += 1,
            START_OF_SCAN => break,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    file.get(at..).is_some_and(|picture| picture.windows(2).any(|pair| pair == [0xff, END]))
}
