//! Pages of pictures and text: the contact sheet of a set, the chart of a run, the demo's sheet.

mod text;

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

pub use text::{GLYPH, Style, cut, wrap};

pub(crate) const PAPER: [u8; 3] = [250, 248, 243];
pub(crate) const RULE: [u8; 3] = [222, 216, 204];
pub(crate) const INK: [u8; 3] = [44, 38, 33];
pub(crate) const FADED: [u8; 3] = [133, 123, 111];
pub(crate) const ACCENT: [u8; 3] = [176, 64, 28];

/// The margin at a sheet's edges, in pixels.
pub const MARGIN: u32 = 32;
/// The height of a line of text, in pixels.
pub const LINE: u32 = 15;

/// A page's heading.
pub const TITLE: Style = Style { colour: INK, bold: true, scale: 2 };
/// The name of something.
pub const NAME: Style = Style { colour: INK, bold: true, scale: 1 };
/// Less important text.
pub const DETAIL: Style = Style { colour: FADED, bold: false, scale: 1 };
/// Running text.
pub const BODY: Style = Style { colour: INK, bold: false, scale: 1 };
/// A highlighted word.
pub const MARKED: Style = Style { colour: ACCENT, bold: true, scale: 1 };

/// A picture for text and other pictures. (0, 0) is its top left pixel. Parts outside of it are cut off.
#[derive(Debug, Clone)]
pub struct Page {
    pub(crate) picture: RgbImage,
}

impl Page {
    /// An empty page of this width and height, in pixels.
    pub fn new((width, height): (u32, u32)) -> Page {
        Page { picture: RgbImage::from_pixel(width, height, Rgb(PAPER)) }
    }

    /// Width and height, in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.picture.dimensions()
    }

    /// Draws one line of text, with its top left corner at `at`.
    pub fn text(&mut self, at: (u32, u32), text: &str, style: Style) {
        text::draw(&mut self.picture, at, text, style);
    }

    /// Draws one line of text in `style`. The byte ranges `words`, in ascending order, are [`MARKED`].
    pub fn text_marking(
        &mut self,
        (mut x, y): (u32, u32),
        text: &str,
        style: Style,
        words: &[std::ops::Range<usize>],
    ) {
        let mut done = 0;
        let mut piece = |text: &str, style: Style| {
            self.text((x, y), text, style);
            x += text.chars().count() as u32 * GLYPH.0 * style.scale;
        };
        for word in words {
            piece(&text[done..word.start], style);
            piece(&text[word.clone()], MARKED);
            done = word.end;
        }
        piece(&text[done..], style);
    }

    /// Draws a thin line across the page, from margin to margin.
    pub fn rule(&mut self, y: u32) {
        for x in MARGIN..self.picture.width().saturating_sub(MARGIN) {
            if let Some(pixel) = self.picture.get_pixel_mut_checked(x, y) {
                *pixel = Rgb(RULE);
            }
        }
    }

    /// Draws rows of RGB pixels as a square of `side` pixels. Draws nothing if `rgb` does not have `size` (width,
    /// height) pixels.
    pub fn square(&mut self, at: (u32, u32), rgb: &[u8], size: (usize, usize), side: u32) {
        let picture = RgbImage::from_raw(size.0 as u32, size.1 as u32, rgb.to_vec());
        if let Some(picture) = picture {
            self.paste(at, &imageops::resize(&picture, side, side, FilterType::CatmullRom));
        }
    }

    /// Draws another page on this one.
    pub fn page(&mut self, at: (u32, u32), page: &Page) {
        self.paste(at, &page.picture);
    }

    pub(crate) fn paste(&mut self, (x, y): (u32, u32), picture: &RgbImage) {
        imageops::replace(&mut self.picture, picture, x.into(), y.into());
    }

    /// The page as a PNG file.
    pub fn png(&self) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        self.picture
            .write_to(&mut file, ImageFormat::Png)
            .expect("an RGB picture in memory is written as a PNG");
        file.into_inner()
    }
}

/// The number of characters that fit into `width` pixels.
pub fn characters(width: u32) -> usize {
    (width / GLYPH.0) as usize
}
