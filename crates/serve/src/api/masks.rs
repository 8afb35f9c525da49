//! Pictures and masks that come within requests, and pictures in the format that a request asks for.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, ImageReader, Limits};

/// The most pixels on a side, as for pictures of requests elsewhere.
const MOST_SIDE: u32 = 16_384;
/// The most bytes that a decoded picture takes.
const MOST_BYTES: u64 = 512 << 20;
/// The quality of JPEG files, where a request does not say one.
const QUALITY: u8 = 90;

/// The formats of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    /// With its quality, from 1 to 100.
    Jpeg(Option<u8>),
    /// Without loss.
    Webp,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg(_) => "jpeg",
            Format::Webp => "webp",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg(_) => "jpg",
            Format::Webp => "webp",
        }
    }
}

/// Decodes a picture. The error is one line.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_SIDE), Some(MOST_SIDE));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    reader.decode().map_err(|e| format!("not a picture that can be read: {e}").replace(char::is_control, " "))
}

/// The mask of a picture whose transparent pixels are to be filled: white there, black elsewhere. `None`: no pixel is transparent.
pub(super) fn of_transparency(picture: &DynamicImage) -> Option<GrayImage> {
    if !picture.color().has_alpha() {
        return None;
    }
    let pixels = picture.to_rgba8();
    let mask =
        GrayImage::from_fn(pixels.width(), pixels.height(), |x, y| [255 - pixels.get_pixel(x, y)[3]].into());
    mask.pixels().any(|pixel| pixel[0] > 0).then_some(mask)
}

/// A mask with black and white exchanged.
pub(super) fn inverted(mask: &DynamicImage) -> GrayImage {
    let mut mask = mask.to_luma8();
    image::imageops::invert(&mut mask);
    mask
}

/// A picture as PNG.
pub(super) fn png(picture: &DynamicImage) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|e| e.to_string())?;
    Ok(bytes.into_inner())
}

/// A PNG file in another format.
pub(super) fn convert(png: &[u8], format: Format) -> Result<Vec<u8>, String> {
    if format == Format::Png {
        return Ok(png.to_vec());
    }
    let picture = DynamicImage::from(decode(png)?.to_rgb8());
    let mut bytes = Cursor::new(Vec::new());
    match format {
        Format::Jpeg(quality) => {
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality.unwrap_or(QUALITY)))
        }
        _ => picture.write_to(&mut bytes, ImageFormat::WebP),
    }
    .map_err(|e| e.to_string())?;
    Ok(bytes.into_inner())
}

/// Width and height of a PNG file.
pub(super) fn png_size(png: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

/// The text of a keyword in a PNG file, `parameters` for example. Latin-1 in `tEXt` chunks, UTF-8 in `iTXt`.
pub(super) fn png_text(png: &[u8], keyword: &str) -> Option<String> {
    let mut rest = png.get(8..)?;
    while rest.len() >= 12 {
        let length = usize::try_from(u32::from_be_bytes(rest[..4].try_into().ok()?)).ok()?;
        let (kind, content) = (&rest[4..8], rest[8..].get(..length)?);
        let text = content.strip_prefix(keyword.as_bytes()).and_then(|text| text.strip_prefix(b"\0"));
        match (kind, text) {
            (b"tEXt", Some(text)) => return Some(text.iter().map(|byte| char::from(*byte)).collect()),
            // Not compressed; then language and translated keyword, each with its end.
            (b"iTXt", Some([0, _, text @ ..])) => {
                return text
                    .splitn(3, |byte| *byte == 0)
                    .nth(2)
                    .map(|text| String::from_utf8_lossy(text).into_owned());
            }
            _ => {}
        }
        rest = rest.get(12 + length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, RgbaImage};

    use super::{Format, convert, decode, inverted, of_transparency, png, png_text};

    /// Protects: what is transparent in a mask of OpenAI's clients is white in ours, and half of it half.
    #[test]
    fn transparency_is_what_is_filled() {
        let picture = RgbaImage::from_fn(3, 1, |x, _| [9, 9, 9, [255, 0, 128][x as usize]].into());
        let mask = of_transparency(&DynamicImage::from(picture)).unwrap();
        assert_eq!(mask.as_raw(), &[0, 255, 127]);
        let opaque = RgbaImage::from_pixel(2, 2, [1, 2, 3, 255].into());
        assert_eq!(of_transparency(&opaque.into()), None);
        let gray = DynamicImage::from(GrayImage::from_raw(2, 1, vec![0, 200]).unwrap());
        assert_eq!(inverted(&gray).as_raw(), &[255, 55]);
    }

    /// Protects: answers come in the format that was asked for, of the same size.
    #[test]
    fn formats() {
        let picture =
            png(&DynamicImage::from(RgbaImage::from_pixel(16, 8, [200, 10, 10, 255].into()))).unwrap();
        let cases = [
            (Format::Png, &b"\x89PNG"[..]),
            (Format::Jpeg(Some(50)), b"\xff\xd8\xff"),
            (Format::Webp, b"RIFF"),
        ];
        for (format, start) in cases {
            let bytes = convert(&picture, format).unwrap();
            assert!(bytes.starts_with(start), "{format:?}");
            let found = decode(&bytes).unwrap();
            assert_eq!((found.width(), found.height()), (16, 8), "{format:?}");
        }
        assert!(decode(b"not a picture").unwrap_err().starts_with("not a picture"));
    }

    /// Protects: infotexts in both kinds of chunks are found; broken files have none.
    #[test]
    fn texts_in_png_files() {
        let chunk = |kind: &[u8], content: &[u8]| {
            [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], kind, content, &[0; 4]].concat()
        };
        let start = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &[0; 13])].concat();
        let latin =
            [start.clone(), chunk(b"tEXt", b"other\0x"), chunk(b"tEXt", b"parameters\0caf\xe9\nSteps: 1")]
                .concat();
        assert_eq!(png_text(&latin, "parameters").as_deref(), Some("caf\u{e9}\nSteps: 1"));
        let utf8 = [start.clone(), chunk(b"iTXt", "parameters\0\0\0de\0x\0猫\0 1".as_bytes())].concat();
        assert_eq!(png_text(&utf8, "parameters").as_deref(), Some("猫\0 1"));
        let huge = [start.clone(), u32::MAX.to_be_bytes().to_vec(), b"tEXtparameters\0x".to_vec()].concat();
        for broken in [&start[..], &latin[..50], b"", b"\x89PNG", &huge] {
            assert_eq!(png_text(broken, "parameters"), None);
        }
    }
}
