//! Sizes: that of the pictures made from a picture, and the part of the picture that is used.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Pixel};

use crate::error::ArgumentError;

/// A picture of more pixels than this multiple of the model's is scaled down.
const LARGE: usize = 2;

/// The width and height of the pictures that are made from a picture of `image` (width, height). Of `width` and `height`, those
/// that are given count. If one is given, the other follows from the picture. If none is, the size is the picture's own, rounded
/// down to a `multiple` of pixels. A picture of more than twice `native`² pixels is scaled down to that area; the result also says
/// whether it was.
///
/// # Errors
/// The picture is smaller than `multiple` pixels.
pub fn size(
    image: (usize, usize),
    (width, height): (Option<usize>, Option<usize>),
    multiple: usize,
    native: Option<usize>,
) -> Result<((usize, usize), bool), ArgumentError> {
    let floor = |pixels: f64| pixels as usize / multiple * multiple;
    let (w, h) = (image.0 as f64, image.1 as f64);
    let (size, scaled) = match (width, height) {
        (Some(width), Some(height)) => ((width, height), false),
        (Some(width), None) => ((width, floor(width as f64 * h / w)), false),
        (None, Some(height)) => ((floor(height as f64 * w / h), height), false),
        (None, None) => {
            let area = native.map_or(f64::INFINITY, |side| (side * side) as f64);
            let large = w * h > LARGE as f64 * area;
            let scale = if large { (area / (w * h)).sqrt() } else { 1.0 };
            ((floor(w * scale), floor(h * scale)), large)
        }
    };
    if size.0 == 0 || size.1 == 0 {
        let expected = format!("a picture that gives at least {multiple} pixels a side");
        return Err(ArgumentError::new("image", expected, format!("{} × {}", image.0, image.1)));
    }
    Ok((size, scaled))
}

/// A picture or a mask.
type Pixels<P> = ImageBuffer<P, Vec<u8>>;

/// The part of a picture that is used, and the size to which it is scaled. The part has the aspect ratio of that size (within a
/// pixel), and is the largest in the middle. If the picture is less than `multiple` pixels larger than the size, the part is of
/// exactly that size and is not scaled, so that its pixels stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Left, top, width and height, in the picture's pixels.
    part: [u32; 4],
    size: (u32, u32),
}

impl Fit {
    /// How a picture of `image` (width, height) is fitted to `size`.
    pub fn new(image: (usize, usize), size: (usize, usize), multiple: usize) -> Fit {
        let ((w, h), (width, height)) = (image, size);
        let own = |from: usize, to: usize| (to..to + multiple).contains(&from);
        let (part_w, part_h) = if own(w, width) && own(h, height) {
            (width, height)
        } else if w * height > h * width {
            (((h * width + height / 2) / height).clamp(1, w), h)
        } else {
            (w, ((w * height + width / 2) / width).clamp(1, h))
        };
        let part = [(w - part_w) / 2, (h - part_h) / 2, part_w, part_h].map(|pixels| pixels as u32);
        Fit { part, size: (width as u32, height as u32) }
    }

    /// The part of a picture, or of a mask of the picture's size, scaled by a Lanczos filter with three lobes.
    pub fn part<P: Pixel<Subpixel = u8> + 'static>(&self, picture: &Pixels<P>) -> Pixels<P> {
        let [x, y, w, h] = self.part;
        let part = imageops::crop_imm(picture, x, y, w, h);
        if (w, h) == self.size {
            return part.to_image();
        }
        imageops::resize(&*part, self.size.0, self.size.1, FilterType::Lanczos3)
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbImage};

    use super::*;

    /// Protects sizes: a picture's own, rounded down; one side given; both given; a large picture, which is scaled down at its
    /// aspect ratio; a picture that is too small.
    #[test]
    fn sizes() {
        let size = |image, given, native| size(image, given, 8, native).expect("a size");
        assert_eq!(size((101, 67), (None, None), Some(128)), ((96, 64), false));
        assert_eq!(size((640, 480), (Some(512), None), Some(1024)), ((512, 384), false));
        assert_eq!(size((640, 480), (None, Some(100)), None), ((128, 100), false));
        assert_eq!(size((640, 480), (Some(64), Some(64)), None), ((64, 64), false));
        assert_eq!(size((1448, 1448), (None, None), Some(1024)), ((1448, 1448), false));
        assert_eq!(size((4000, 3000), (None, None), Some(1024)), ((1176, 880), true));
        assert_eq!(size((9000, 6000), (None, None), None), ((9000, 6000), false));
        let error = super::size((300, 7), (None, None), 8, None).expect_err("too small").to_string();
        assert!(error.starts_with("image: expected ") && error.ends_with("found 300 × 7"), "{error}");
    }

    /// Protects against stretching: the part has the aspect ratio of the size, and lies in the middle.
    #[test]
    fn parts() {
        let part = |image, size| Fit::new(image, size, 8).part;
        assert_eq!(part((101, 67), (96, 64)), [2, 1, 96, 64]);
        assert_eq!(part((96, 64), (96, 64)), [0, 0, 96, 64]);
        assert_eq!(part((200, 100), (64, 64)), [50, 0, 100, 100]);
        assert_eq!(part((100, 200), (64, 64)), [0, 50, 100, 100]);
        assert_eq!(part((10, 7), (1024, 512)), [0, 1, 10, 5]);
        assert_eq!(part((1, 1000), (4096, 8)), [0, 499, 1, 1]);
        assert_eq!(part((1000, 1), (8, 4096)), [499, 0, 1, 1]);
    }

    /// Protects pixels: a part of the right size is copied, others have the right size.
    #[test]
    fn pixels() {
        let picture = RgbImage::from_fn(20, 10, |x, y| [x as u8, y as u8, 7].into());
        let own = Fit::new((20, 10), (16, 8), 8).part(&picture);
        assert_eq!((own.dimensions(), own.get_pixel(0, 0).0), ((16, 8), [2, 1, 7]));
        let scaled = Fit::new((20, 10), (64, 64), 8).part(&picture);
        assert_eq!((scaled.dimensions(), scaled.get_pixel(32, 32).0[2]), ((64, 64), 7));
        let mask = GrayImage::from_pixel(20, 10, [255].into());
        assert!(Fit::new((20, 10), (64, 64), 8).part(&mask).pixels().all(|p| p.0 == [255]));
    }
}
