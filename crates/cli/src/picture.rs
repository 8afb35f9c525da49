//! PNG files with text chunks.

use std::io::{BufWriter, Error, Write};

/// Writes 8-bit RGB pixels, `height` rows of `width`, as a PNG with `texts` (keyword, text) before the image data.
///
/// # Errors
/// Writing fails.
pub fn write_png(
    to: impl Write,
    (width, height): (usize, usize),
    rgb: &[u8],
    texts: &[(&str, String)],
) -> Result<(), Error> {
    let (w, h) = (u32::try_from(width).map_err(Error::other)?, u32::try_from(height).map_err(Error::other)?);
    let mut buffered = BufWriter::new(to);
    let mut encoder = png::Encoder::new(&mut buffered, w, h);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // tEXt is Latin-1. Other text goes into an iTXt chunk, which readers treat alike.
        let added = if text.chars().all(|c| u32::from(c) < 0x100) {
            encoder.add_text_chunk((*keyword).into(), text.clone())
        } else {
            encoder.add_itxt_chunk((*keyword).into(), text.clone())
        };
        added.map_err(Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(Error::other)?;
    writer.write_image_data(rgb).map_err(Error::other)?;
    writer.finish().map_err(Error::other)?;
    buffered.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects pixels and texts: reading gives what was written, in any script.
    #[test]
    fn pixels_and_texts_round_trip() {
        let rgb: Vec<u8> = (0..3 * 2 * 4).collect();
        let texts = [("parameters", "caf\u{e9}\nSteps: 1".to_string()), ("calotype", "猫 🐈".to_string())];
        let mut file = Vec::new();
        write_png(&mut file, (2, 4), &rgb, &texts).expect("written");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().expect("a PNG");
        let mut pixels = vec![0; rgb.len()];
        reader.next_frame(&mut pixels).expect("a frame");
        let info = reader.info();
        assert_eq!((info.width, info.height, pixels), (2, 4, rgb));
        let latin = &info.uncompressed_latin1_text[0];
        assert_eq!((latin.keyword.as_str(), &latin.text), ("parameters", &texts[0].1));
        let other = &info.utf8_text[0];
        assert_eq!(
            (other.keyword.as_str(), other.get_text().expect("text")),
            ("calotype", texts[1].1.clone())
        );
    }

    /// Protects against too few pixels: an error, not a broken file.
    #[test]
    fn too_few_pixels_are_refused() {
        assert!(write_png(Vec::new(), (2, 2), &[0; 3], &[]).is_err());
    }
}
