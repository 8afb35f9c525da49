//! Draws text with bitmap fonts.

use embedded_graphics::geometry::{OriginDimensions, Point};
use embedded_graphics::image::GetPixel;
use embedded_graphics::mono_font::{MonoFont, iso_8859_1, iso_8859_2, iso_8859_5, iso_8859_7};
use embedded_graphics::pixelcolor::BinaryColor;
use image::{Rgb, RgbImage};

/// The width and height of a glyph, in pixels.
pub const GLYPH: (u32, u32) = (7, 13);

/// A face in the available alphabets: Latin, Central European Latin, Cyrillic, Greek.
type Face = [&'static MonoFont<'static>; 4];
const REGULAR: Face =
    [&iso_8859_1::FONT_7X13, &iso_8859_2::FONT_7X13, &iso_8859_5::FONT_7X13, &iso_8859_7::FONT_7X13];
const BOLD: Face = [
    &iso_8859_1::FONT_7X13_BOLD,
    &iso_8859_2::FONT_7X13_BOLD,
    &iso_8859_5::FONT_7X13_BOLD,
    &iso_8859_7::FONT_7X13_BOLD,
];

/// The look of text.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Red, green, blue.
    pub colour: [u8; 3],
    /// Whether the letters are bold.
    pub bold: bool,
    /// The width and height of the font's pixels, in pixels.
    pub scale: u32,
}

/// Draws one line of text, with its top left corner at (x, y). Parts outside of the picture are cut off.
pub(super) fn draw(to: &mut RgbImage, (x, y): (u32, u32), text: &str, style: Style) {
    for (i, c) in text.chars().enumerate() {
        glyph(to, (x + i as u32 * GLYPH.0 * style.scale, y), c, style);
    }
}

fn glyph(to: &mut RgbImage, (x, y): (u32, u32), c: char, style: Style) {
    let face = if style.bold { &BOLD } else { &REGULAR };
    for (dy, dx) in
        (0..GLYPH.1 * style.scale).flat_map(|dy| (0..GLYPH.0 * style.scale).map(move |dx| (dy, dx)))
    {
        let set = is_set(face, c, dx / style.scale, dy / style.scale);
        if let Some(pixel) = to.get_pixel_mut_checked(x + dx, y + dy).filter(|_| set) {
            *pixel = Rgb(style.colour);
        }
    }
}

/// Whether a pixel of a character is set.
fn is_set(face: &Face, c: char, x: u32, y: u32) -> bool {
    if c == '…' {
        return y == 10 && x % 2 == 1;
    }
    // A font gives its question mark for characters that it lacks.
    let has = |font: &&&MonoFont| font.glyph_mapping.index(c) != font.glyph_mapping.index('?');
    let Some(font) = face.iter().find(has) else {
        // A box for characters that no font has, and the question mark itself.
        let edge = (1..6).contains(&x) && (2..11).contains(&y) && (x == 1 || x == 5 || y == 2 || y == 10);
        return if c == '?' { pixel(face[0], c, x, y) } else { edge };
    };
    pixel(font, c, x, y)
}

fn pixel(font: &MonoFont, c: char, x: u32, y: u32) -> bool {
    let size = font.character_size;
    let per_row = (font.image.size().width / size.width).max(1);
    let index = font.glyph_mapping.index(c) as u32;
    let at = ((index % per_row) * size.width + x, (index / per_row) * size.height + y);
    font.image.pixel(Point::new(at.0 as i32, at.1 as i32)) == Some(BinaryColor::On)
}

/// Breaks text into at most `lines` lines of at most `width` characters, between words if possible. Text that does not fit ends
/// with `…`.
pub fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = wrapped.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + word.len() <= width {
            word.insert(0, ' ');
        } else if used > 0 {
            wrapped.push(String::new());
        }
        // A word that is longer than a line is broken.
        for (i, piece) in word.chunks(width.max(1)).enumerate() {
            if i > 0 {
                wrapped.push(String::new());
            }
            if let Some(line) = wrapped.last_mut() {
                line.extend(piece);
            }
        }
    }
    if wrapped.len() > lines {
        wrapped.truncate(lines);
        if let Some(line) = wrapped.last_mut() {
            *line = cut(&format!("{line}…"), width);
        }
    }
    wrapped
}

/// Cuts text to `width` characters, with `…` as the last.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end_matches([' ', '…']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects wrapping: text is broken between words, long words are broken too, and text that was cut ends with `…`. No
    /// width and no number of lines panics.
    #[test]
    fn text_is_wrapped() {
        assert_eq!(wrap("a bb ccc dddd", 6, 9), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrap("a bb ccc dddd", 6, 2), ["a bb", "ccc…"]);
        assert_eq!(wrap("abcdefgh ij", 3, 9), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("猫猫猫 é", 2, 1), ["猫…"]);
        assert_eq!(wrap("", 6, 9), [""]);
        for (width, lines) in [(0, 0), (0, 1), (1, 1), (1, 0)] {
            assert!(wrap("two words", width, lines).len() <= lines);
        }
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".into(), "ab…".into()));
    }

    /// Protects glyphs: characters of the fonts' alphabets are drawn as themselves, others as boxes, and nothing is drawn
    /// outside of the picture.
    #[test]
    fn characters_are_drawn() {
        let style = Style { colour: [0; 3], bold: false, scale: 1 };
        let drawn = |text: &str| {
            let mut picture = RgbImage::from_pixel(GLYPH.0, GLYPH.1, Rgb([255; 3]));
            draw(&mut picture, (0, 0), text, style);
            picture.into_raw()
        };
        let glyphs: Vec<_> = ["a", "é", "ő", "ж", "λ", "?", "猫", " "].map(drawn).into();
        for (i, glyph) in glyphs.iter().enumerate() {
            assert!(!glyphs[..i].contains(glyph), "{i}");
        }
        assert_eq!(drawn("猫"), drawn("🐈"));
        assert_eq!(drawn("ab"), drawn("a"), "cut off at the edge");
    }
}
