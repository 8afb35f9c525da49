//! Decodes pictures and masks of all supported formats: of training sets, and of requests.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use calotype_models::shorten;

/// The pixels of the pictures that the largest cameras take: a limit for [`decode`], where no smaller one is needed.
pub const CAMERA_PIXELS: u64 = 120_000_000;
/// The most bytes that decoding a picture takes.
const MAX_DECODING: u64 = 800_000_000;
/// The most bytes that a PNG's decoder takes in addition to the picture: compressed texts and colour profiles.
const MAX_METADATA: u64 = 32 << 20;

/// The reason why a picture was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecoded {
    /// More pixels than the limit: width, height and limit.
    #[error("expected at most {2} pixels, found {0} × {1}")]
    TooManyPixels(u32, u32, u64),
    /// The decoder's error, on one line.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Decodes a picture to sRGB with 8 bits, upright and on white. Also returns whether any pixel is transparent. Colour profiles
/// are not applied. CMYK JPEGs are taken as inverted, as Adobe's programs write them, with or without Adobe's marker; Pillow
/// does the same.
///
/// # Errors
/// The picture has more than `most` pixels by its header, or as many that decoding takes too much memory, or it cannot be read.
pub fn decode(file: &[u8], most: u64) -> Result<(RgbImage, bool), Undecoded> {
    let (picture, orientation) = load(file, most)?;
    let (picture, transparent) = on_white(picture);
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(orientation);
    Ok((picture.into_rgb8(), transparent))
}

/// Puts a picture on white, and returns whether any pixel is transparent. Works in place, because pictures may be large.
fn on_white(picture: DynamicImage) -> (RgbImage, bool) {
    if !picture.color().has_alpha() {
        return (picture.into_rgb8(), false);
    }
    let rgba = picture.into_rgba8();
    let (width, height) = rgba.dimensions();
    let mut bytes = rgba.into_raw();
    let (pixels, mut transparent) = (bytes.len() / 4, false);
    for i in 0..pixels {
        let alpha = bytes[4 * i + 3];
        transparent |= alpha < 255;
        for c in 0..3 {
            bytes[3 * i + c] = over(bytes[4 * i + c], 255, alpha);
        }
    }
    bytes.truncate(3 * pixels);
    bytes.shrink_to_fit();
    (RgbImage::from_raw(width, height, bytes).expect("three bytes for each pixel"), transparent)
}

/// Decodes a mask to grey, upright. Colours become their luma. Transparent pixels become black, because they are cut out.
///
/// # Errors
/// As [`decode`].
pub fn decode_mask(file: &[u8], most: u64) -> Result<GrayImage, Undecoded> {
    let (mask, orientation) = load(file, most)?;
    // Rotated last: a rotated picture is a copy, and a grey copy is the smallest.
    let mut mask = DynamicImage::from(grey(mask));
    mask.apply_orientation(orientation);
    Ok(mask.into_luma8())
}

/// The luma of a picture on black.
fn grey(picture: DynamicImage) -> GrayImage {
    if !picture.color().has_alpha() {
        return picture.into_luma8();
    }
    let picture = picture.into_luma_alpha8();
    GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [grey, alpha] = picture.get_pixel(x, y).0;
        [over(grey, 0, alpha)].into()
    })
}

/// A picture's width and height in pixels as they are stored, from its header. `file` may be the beginning of the file.
///
/// # Errors
/// As [`decode`].
pub fn stored_size(file: &[u8], most: u64) -> Result<(u32, u32), Undecoded> {
    open(file, most).map(|decoder| decoder.dimensions())
}

fn pixels_of((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

/// `colour` of opacity `alpha` over `ground`, rounded.
fn over(colour: u8, ground: u8, alpha: u8) -> u8 {
    let (c, g, a) = (u32::from(colour), u32::from(ground), u32::from(alpha));
    ((c * a + g * (255 - a) + 127) / 255) as u8
}

/// Opens a picture by its content, if it does not have too many pixels.
fn open(file: &[u8], most: u64) -> Result<impl ImageDecoder, Undecoded> {
    if let Some(format) = foreign(file) {
        return Err(Undecoded::Unreadable(format!("{format} is not read (convert to PNG or JPEG)")));
    }
    let reader = ImageReader::new(Cursor::new(file));
    let mut reader = reader.with_guessed_format().map_err(|e| unreadable(e.into()))?;
    let format = reader.format();
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(if format == Some(ImageFormat::Png) { MAX_METADATA } else { MAX_DECODING });
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    let cost = bytes_per_pixel(file, format, decoder.color_type());
    let limit = most.min(MAX_DECODING / cost);
    if pixels_of((width, height)) > limit {
        return Err(Undecoded::TooManyPixels(width, height, limit));
    }
    if width == 0 || height == 0 {
        return Err(Undecoded::Unreadable("it has no pixels".into()));
    }
    Ok(decoder)
}

fn unreadable(e: image::ImageError) -> Undecoded {
    Undecoded::Unreadable(shorten(&e.to_string()))
}

/// The most bytes per pixel that a picture takes in addition to its file, while it is decoded, converted to 8 bits, and rotated
/// upright. `tests/set_memory.rs` measures them.
fn bytes_per_pixel(file: &[u8], format: Option<ImageFormat>, color: ColorType) -> u64 {
    let decoded = u64::from(color.bytes_per_pixel());
    let in_8_bits = match color {
        ColorType::Rgb8 | ColorType::Rgba8 => decoded,
        _ => decoded + if color.has_alpha() { 4 } else { 3 },
    };
    let usual = in_8_bits.max(ROTATION);
    match format {
        // A second copy that the decoder does not count.
        Some(ImageFormat::Tiff) => usual.max(2 * decoded),
        // The canvas, a frame that may be smaller, and its colour indices.
        Some(ImageFormat::Gif) => 9,
        // An animation also has the canvas before the frame.
        Some(ImageFormat::WebP) if has_flag(file, ANIMATION) => 15,
        // The transparency of a lossy picture is a picture of its own.
        Some(ImageFormat::WebP) if has_flag(file, ALPHA) => 11,
        Some(ImageFormat::WebP) => 8,
        // All coefficients, of two bytes each, and the picture.
        Some(ImageFormat::Jpeg) => segments(file)
            .find(|(marker, _)| *marker == PROGRESSIVE)
            .map_or(usual, |(_, at)| 2 * u64::from(file.get(at + 9).copied().unwrap_or(4)) + 3),
        _ => usual,
    }
}

/// Bytes per pixel of two copies with 8 bits per channel.
const ROTATION: u64 = 6;
/// Flags of an extended WebP.
const ANIMATION: u8 = 2;
const ALPHA: u8 = 16;

fn has_flag(webp: &[u8], flag: u8) -> bool {
    webp.get(12..16) == Some(b"VP8X") && webp.get(20).is_some_and(|flags| flags & flag != 0)
}

/// The name of a picture format that is not supported, by the file's first bytes.
fn foreign(file: &[u8]) -> Option<&'static str> {
    if file.get(4..8) == Some(b"ftyp") {
        return Some(match file.get(8..12)? {
            b"avif" | b"avis" => "AVIF",
            b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1" => "HEIC",
            b"crx " => "CR3",
            _ => "a video",
        });
    }
    let known: [(&[u8], &str); 6] = [
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "PSD"),
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
    ];
    known.iter().find(|(head, _)| file.starts_with(head)).map(|(_, name)| *name)
}

/// Decodes a picture, or the first frame of an animation, and returns its orientation from EXIF.
fn load(file: &[u8], most: u64) -> Result<(DynamicImage, Orientation), Undecoded> {
    let mut decoder = open(file, most)?;
    if !jpeg_is_whole(file) {
        return Err(Undecoded::Unreadable("the file ends early".into()));
    }
    // The WebP decoder allocates the memory that the EXIF chunk claims.
    let orientation = if file.get(8..12) == Some(b"WEBP") {
        webp_exif(file).and_then(Orientation::from_exif_chunk)
    } else {
        decoder.orientation().ok()
    };
    // A broken EXIF chunk does not make the picture invalid.
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(unreadable)?, orientation))
}

/// The EXIF chunk of a WebP, if it is complete.
fn webp_exif(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.get(12..)?;
    loop {
        let (name, size) = (rest.get(..4)?, rest.get(4..8)?.try_into().ok()?);
        let size = usize::try_from(u32::from_le_bytes(size)).ok()?;
        let content = rest.get(8..)?.get(..size)?;
        if name == b"EXIF" {
            return Some(content);
        }
        // Chunks begin at even places.
        rest = rest.get(8 + size + size % 2..)?;
    }
}

const START_OF_SCAN: u8 = 0xda;
const PROGRESSIVE: u8 = 0xc2;

/// The segments of a JPEG before the image data, as marker and offset. Other files have none. A segment may contain a whole
/// JPEG as a thumbnail.
fn segments(file: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut at = if file.starts_with(&[0xff, 0xd8]) { 2 } else { file.len() };
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            let Some(&[0xff, marker, high, low]) = file.get(at..at + 4) else { return None };
            let place = at;
            match marker {
                // Fill bytes.
                0xff => {
                    at += 1;
                    continue;
                }
                START_OF_SCAN => ended = true,
                _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            }
            return Some((marker, place));
        }
        None
    })
}

/// Whether a JPEG has its end marker; true for other files. The decoder fills missing parts with grey, without an error.
fn jpeg_is_whole(file: &[u8]) -> bool {
    const END: u8 = 0xd9;
    if !file.starts_with(&[0xff, 0xd8]) {
        return true;
    }
    let scan = segments(file).last().filter(|(marker, _)| *marker == START_OF_SCAN).map_or(2, |(_, at)| at);
    file[scan..].windows(2).any(|pair| pair == [0xff, END])
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

    /// Protects EXIF chunks: the chunk is the part of the file that its header gives, and a chunk longer than the
    /// file is ignored.
    #[test]
    fn exif_of_webp() {
        let mut file = golden("turned.webp");
        let at = file.windows(4).position(|name| name == b"EXIF").expect("an EXIF");
        let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        assert_eq!(webp_exif(&file), Some(&file[at + 8..][..length]));
        file[at + 4..at + 8].fill(0xff);
        assert_eq!(webp_exif(&file), None);
        assert!(decode(&file, CAMERA_PIXELS).is_ok());
    }

    /// Protects all formats, depths, palettes, transparency, inverted CMYK and orientations: the pixels are those of Pillow.
    #[test]
    fn pictures_are_what_pillow_sees() {
        let all: BTreeMap<String, Seen> = serde_json::from_slice(&golden("pictures.json")).expect("JSON");
        assert!(all.len() > 30);
        let mut wrong = Vec::new();
        for (name, seen) in all {
            let (picture, _) =
                decode(&golden(&name), CAMERA_PIXELS).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let (w, h) = seen.size;
            assert_eq!(picture.dimensions(), (w, h), "{name}");
            let at = (0..3).flat_map(|y| (0..4).map(move |x| (x * (w - 1) / 3, y * (h - 1) / 2)));
            let off = |((x, y), expected): ((u32, u32), &[u8; 3])| {
                let found = picture.get_pixel(x, y).0;
                found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
            };
            let worst = at.zip(&seen.rgb).map(off).max().unwrap_or(0);
            // Decoders of lossy formats round differently, and smooth colours differently between blocks.
            let lossy = name.ends_with(".jpg") || name == "lossy.webp";
            if worst > if lossy { 5 } else { 1 } {
                wrong.push(format!("{name}: {worst}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Protects against truncated files: a JPEG that ends early is an error even if it contains a whole thumbnail, and so is
    /// any other truncated file.
    #[test]
    fn cut_off_files_are_unreadable() {
        for name in
            ["rgb.png", "progressive.jpg", "turned_6.jpg", "cmyk.jpg", "rgb.bmp", "alpha.webp", "rgb.tiff"]
        {
            let whole = golden(name);
            for length in [0, 1, 10, whole.len() / 2, whole.len() * 9 / 10] {
                let error = decode(&whole[..length], CAMERA_PIXELS).expect_err(name);
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
        assert!(decode(&with_thumbnail, CAMERA_PIXELS).is_ok());
        with_thumbnail.truncate(with_thumbnail.len() - 20);
        assert_eq!(
            decode(&with_thumbnail, CAMERA_PIXELS),
            Err(Undecoded::Unreadable("the file ends early".into()))
        );
    }

    /// Protects memory: a header with more pixels than any camera has is refused before anything is allocated.
    #[test]
    fn a_huge_picture_is_refused_by_its_header() {
        let mut bmp = golden("rgb.bmp");
        bmp[18..22].copy_from_slice(&30_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&20_000u32.to_le_bytes());
        assert_eq!(decode(&bmp, CAMERA_PIXELS), Err(Undecoded::TooManyPixels(30_000, 20_000, CAMERA_PIXELS)));
    }

    /// Protects the cost of decoding, which follows from the header. (Another test measures that the decoder takes no more.)
    #[test]
    fn costs_by_header() {
        use ImageFormat::{Gif, Jpeg, Png, Tiff, WebP};
        let cost = |format, color| bytes_per_pixel(&[], Some(format), color);
        let colours =
            [ColorType::Rgb8, ColorType::Rgba8, ColorType::La16, ColorType::Rgba16, ColorType::Rgb32F];
        assert_eq!(colours.map(|color| cost(Png, color)), [6, 6, 8, 12, 15]);
        assert_eq!(colours.map(|color| cost(Tiff, color)), [6, 8, 8, 16, 24]);
        assert_eq!(cost(Gif, ColorType::Rgba8), 9);
        let of = |name: &str, format, color| bytes_per_pixel(&golden(name), Some(format), color);
        assert_eq!(of("grey.jpg", Jpeg, ColorType::L8), 6);
        assert_eq!(of("progressive.jpg", Jpeg, ColorType::Rgb8), 9);
        assert_eq!(of("lossy.webp", WebP, ColorType::Rgb8), 8);
        assert_eq!(of("large_alpha.webp", WebP, ColorType::Rgba8), 11);
        assert_eq!(of("large_frames.webp", WebP, ColorType::Rgba8), 15);
        let mut cmyk = golden("progressive.jpg");
        let (_, at) = segments(&cmyk).find(|(marker, _)| *marker == PROGRESSIVE).expect("a frame");
        cmyk[at + 9] = 4;
        assert_eq!(bytes_per_pixel(&cmyk, Some(Jpeg), ColorType::Rgb8), 11);
    }

    /// Protects masks: a mask is the luma of its colours, and transparent pixels are black.
    #[test]
    fn masks_are_grey() {
        let luma = |mask: GrayImage| mask.get_pixel(0, 0).0[0];
        let png = |picture: DynamicImage| {
            let mut file = Cursor::new(Vec::new());
            picture.write_to(&mut file, image::ImageFormat::Png).expect("a PNG");
            luma(decode_mask(file.get_ref(), CAMERA_PIXELS).expect("a mask"))
        };
        assert_eq!(png(GrayImage::from_pixel(1, 1, [93].into()).into()), 93);
        assert_eq!(png(RgbImage::from_pixel(1, 1, [0, 255, 0].into()).into()), 182);
        assert_eq!(png(image::RgbaImage::from_pixel(1, 1, [255, 255, 255, 51].into()).into()), 51);
    }
}
