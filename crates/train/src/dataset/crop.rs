//! The square of a picture that is used for training.

use calotype_models::config::Resample;
use image::{GenericImageView, GrayImage, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::pillow::resize;

/// A square inside of a picture, in the picture's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Crop {
    pub top: u32,
    pub left: u32,
    pub side: u32,
}

impl Crop {
    /// The largest square of a picture: centred at the mask's centre of mass as far as the edges allow, or in the middle. The
    /// centre's fractions are rounded, halves up.
    pub(crate) fn choose((width, height): (u32, u32), mask: Option<&GrayImage>) -> Crop {
        let side = width.min(height);
        let Mass { sum, y, x } = mask.map_or_else(|| Mass::middle(width, height), Mass::of);
        let start = |twice: i128, length: u32| {
            // The centre is `twice / (2 · sum)`, and the square begins half a side before it.
            let start = (twice + (1 - i128::from(side)) * sum).div_euclid(2 * sum);
            start.clamp(0, i128::from(length - side)) as u32
        };
        Crop { top: start(y, height), left: start(x, width), side }
    }

    /// The square of a picture, as it is.
    pub(crate) fn cut(self, picture: &RgbImage) -> RgbImage {
        imageops::crop_imm(picture, self.left, self.top, self.side, self.side).to_image()
    }

    /// The bytes of a picture's square, resized to `resolution`² pixels by a Lanczos filter with three lobes, also if it is smaller.
    pub(crate) fn picture(self, picture: &RgbImage, resolution: usize) -> Vec<u8> {
        self.resized(picture.as_raw(), picture.width(), 3, resolution, Resample::Lanczos)
    }

    /// The bytes of a mask's square, resized to `resolution`² pixels by linear interpolation, which does not exceed the mask's values.
    pub(crate) fn mask(self, mask: &GrayImage, resolution: usize) -> Vec<u8> {
        self.resized(mask.as_raw(), mask.width(), 1, resolution, Resample::Bilinear)
    }

    fn resized(self, bytes: &[u8], width: u32, channels: usize, to: usize, filter: Resample) -> Vec<u8> {
        let Crop { top, left, side } = self;
        let [top, left, side, width] = [top, left, side, width].map(|length| length as usize);
        let from = channels * (top * width + left);
        resize(&bytes[from..], channels * width, channels, [side; 2], [to; 2], filter)
    }

    /// The largest value of a mask in the square.
    pub(crate) fn brightest(self, mask: &GrayImage) -> u8 {
        let square = imageops::crop_imm(mask, self.left, self.top, self.side, self.side);
        GenericImageView::pixels(&*square).map(|(_, _, pixel)| pixel.0[0]).max().unwrap_or_default()
    }

    /// (top, left) of the square, in pixels of the resized picture. SDXL's crop conditioning counts after resizing, as in
    /// diffusers' training.
    pub(crate) fn top_left(self, resolution: usize) -> [usize; 2] {
        let scaled = |at: u32| (f64::from(at) * resolution as f64 / f64::from(self.side)).round() as usize;
        [scaled(self.top), scaled(self.left)]
    }
}

/// The mass of a mask, of which each value counts as value + 0.01, in hundredths. In whole numbers, so that the centre of a mask
/// without contrast is exactly the middle.
struct Mass {
    sum: i128,
    /// Twice the sum of mass × y at the pixels' centres; the same for x.
    y: i128,
    x: i128,
}

impl Mass {
    fn of(mask: &GrayImage) -> Mass {
        let mut mass = Mass { sum: 0, y: 0, x: 0 };
        for (y, row) in mask.rows().enumerate() {
            let (mut sum, mut twice_x) = (0_i128, 0_i128);
            for (x, pixel) in row.enumerate() {
                let value = i128::from(pixel.0[0]) * 100 + 1;
                sum += value;
                twice_x += value * (2 * x as i128 + 1);
            }
            mass.sum += sum;
            mass.x += twice_x;
            mass.y += sum * (2 * y as i128 + 1);
        }
        mass
    }

    /// The mass of a picture without a mask.
    fn middle(width: u32, height: u32) -> Mass {
        Mass { sum: 1, y: height.into(), x: width.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(top: u32, left: u32, side: u32) -> Crop {
        Crop { top, left, side }
    }

    /// Protects the square: in the middle without a mask, around the mask's white part with one, and always
    /// inside of the picture.
    #[test]
    fn the_square_follows_the_mask() {
        assert_eq!(Crop::choose((30, 10), None), crop(0, 10, 10));
        assert_eq!(Crop::choose((10, 31), None), crop(11, 0, 10));
        let spot = |x0: u32, x1: u32| {
            GrayImage::from_fn(30, 10, |x, _| [if (x0..x1).contains(&x) { 255 } else { 0 }].into())
        };
        assert_eq!(Crop::choose((30, 10), Some(&spot(16, 18))), crop(0, 12, 10));
        assert_eq!(Crop::choose((30, 10), Some(&spot(0, 2))), crop(0, 0, 10));
        assert_eq!(Crop::choose((30, 10), Some(&spot(29, 30))), crop(0, 20, 10));
        assert_eq!(Crop::choose((30, 10), Some(&spot(0, 0))), crop(0, 10, 10), "a black mask has no centre");
        assert_eq!(Crop::choose((1, 1), None), crop(0, 0, 1));
    }

    /// Protects the centre of mass: it weights values, each raised by 0.01, and positions are centres of pixels.
    #[test]
    fn the_centre_is_weighted() {
        let Mass { sum, y, x } = Mass::of(&GrayImage::from_raw(3, 1, vec![100, 0, 50]).expect("a mask"));
        assert_eq!((sum, y, x), (15_003, 15_003, 10_001 + 3 + 5 * 5_001));
        let flat = GrayImage::from_pixel(31, 10, [50].into());
        assert_eq!(Crop::choose((31, 10), Some(&flat)), Crop::choose((31, 10), None));
    }

    /// Protects the crop's position, which is in resized pixels.
    #[test]
    fn the_crop_is_scaled() {
        assert_eq!(crop(0, 240, 960).top_left(512), [0, 128]);
        assert_eq!(crop(3, 0, 10).top_left(1024), [307, 0]);
        assert_eq!(crop(1, 0, 2).top_left(1), [1, 0], "rounded");
    }

    /// Protects the crop: it contains the square and nothing else, and a uniform mask does not change.
    #[test]
    fn nothing_outside_of_the_square_shows() {
        let picture =
            RgbImage::from_fn(
                30,
                10,
                |x, _| if (10..20).contains(&x) { [9, 8, 7].into() } else { [255; 3].into() },
            );
        let seen = crop(0, 10, 10).picture(&picture, 16);
        assert_eq!(seen, [9, 8, 7].repeat(16 * 16));
        let mask = GrayImage::from_pixel(30, 10, [77].into());
        assert_eq!(crop(0, 10, 10).mask(&mask, 7), [77; 7 * 7]);
    }
}
