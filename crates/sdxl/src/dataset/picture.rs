//! Decoding pictures and masks, whatever they are stored as.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage};

use crate::config::shorten;

/// The most pixels of a picture: a little more than the largest cameras take.
pub(super) const MAX_PIXELS: u64 = 200_000_000;
/// The most that a decoder may allocate: nearly twice such a picture in four channels of 16 bits.
const MAX_ALLOC: u64 = 3 << 30;

/// Why a picture was not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undecoded {
    /// More than [`MAX_PIXELS`]: width and height.
    TooManyPixels(u32, u32),
    /// What the decoder says, in one line.
    Unreadable(String),
}

/// A picture as sRGB: upright, transparency on white, 8 bits. Colour profiles are not applied. JPEGs in CMYK are taken
/// for inverted, as Adobe's programs write them, with or without Adobe's marker; so does Pillow.
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
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Seen {
        size: (u32, u32),
        rgb: Vec<[u8; 3]>,
    }

    fn golden(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
        std::fs::read(folder.join(name)).expect("a golden file")
    }

    /// Protects: every format, depth, palette, transparency, inverted CMYK and orientation comes out as Pillow sees it.
    #[test]
    fn pictures_are_what_pillow_sees() {
        let all: BTreeMap<String, Seen> = serde_json::from_slice(&golden("pictures.json")).expect("JSON");
        assert!(all.len() > 30);
        let mut wrong = Vec::new();
        for (name, seen) in all {
            let picture = decode(&golden(&name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let (w, h) = seen.size;
            assert_eq!(picture.dimensions(), (w, h), "{name}");
            let at = (0..3).flat_map(|y| (0..4).map(move |x| (x * (w - 1) / 3, y * (h - 1) / 2)));
            let off = |((x, y), expected): ((u32, u32), &[u8; 3])| {
                let found = picture.get_pixel(x, y).0;
                found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
            };
            let worst = at.zip(&seen.rgb).map(off).max().unwrap_or(0);
            // Decoders of lossy formats differ in how they round, and smooth colours between blocks.
            let lossy = name.ends_with(".jpg") || name == "lossy.webp";
            if worst > if lossy { 5 } else { 1 } {
                wrong.push(format!("{name}: {worst}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Protects: a JPEG that ends early is not taken for one with a grey half, though it holds a whole thumbnail; nor is
    /// any other file that was cut off.
    #[test]
    fn cut_off_files_are_unreadable() {
        for name in
            ["rgb.png", "progressive.jpg", "turned_6.jpg", "cmyk.jpg", "rgb.bmp", "alpha.webp", "rgb.tiff"]
        {
            let whole = golden(name);
            for length in [0, 1, 10, whole.len() / 2, whole.len() * 9 / 10] {
                let error = decode(&whole[..length]).expect_err(name);
                assert!(
                    matches!(&error, Undecoded::Unreadable(reason) if !reason.contains('\n')),
                    "{error:?}"
                );
            }
        }
        let whole = golden("turned_1.jpg");
        let mut with_thumbnail = whole[..2].to_vec();
        with_thumbnail.extend([0xff, 0xe2]);
        with_thumbnail.extend((whole.len() as u16 + 2).to_be_bytes());
        with_thumbnail.extend(&whole);
        with_thumbnail.extend(&whole[2..]);
        assert!(decode(&with_thumbnail).is_ok());
        with_thumbnail.truncate(with_thumbnail.len() - 20);
        assert_eq!(decode(&with_thumbnail), Err(Undecoded::Unreadable("the file ends early".into())));
    }

    /// Protects: a header that claims more pixels than any camera has is refused before anything is allocated.
    #[test]
    fn a_huge_picture_is_refused_by_its_header() {
        let mut bmp = golden("rgb.bmp");
        bmp[18..22].copy_from_slice(&30_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&20_000u32.to_le_bytes());
        assert_eq!(decode(&bmp), Err(Undecoded::TooManyPixels(30_000, 20_000)));
    }

    /// Protects: a mask is the luma of its colours, and what is transparent is left out.
    #[test]
    fn masks_are_grey() {
        let luma = |mask: GrayImage| mask.get_pixel(0, 0).0[0];
        let png = |picture: DynamicImage| {
            let mut file = Cursor::new(Vec::new());
            picture.write_to(&mut file, image::ImageFormat::Png).expect("a PNG");
            luma(decode_mask(file.get_ref()).expect("a mask"))
        };
        assert_eq!(png(GrayImage::from_pixel(1, 1, [93].into()).into()), 93);
        assert_eq!(png(RgbImage::from_pixel(1, 1, [0, 255, 0].into()).into()), 182);
        assert_eq!(png(image::RgbaImage::from_pixel(1, 1, [255, 255, 255, 51].into()).into()), 51);
    }
}
