//! The square of a picture that is used for training.

use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

/// A square inside of a picture, in the picture's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Square {
    pub top: u32,
    pub left: u32,
    pub side: u32,
}

impl Square {
    /// The largest square of a picture: centred at the mask's centre of mass as far as the edges allow, or in the middle.
    pub(super) fn choose((width, height): (u32, u32), mask: Option<&GrayImage>) -> Square {
        let side = width.min(height);
        let middle = [f64::from(height) / 2.0, f64::from(width) / 2.0];
        let [y, x] = mask.and_then(centre_of_mass).unwrap_or(middle);
        let start = |centre: f64, length: u32| {
            // A cast from float to integer saturates, so that negative values become 0.
            ((centre - f64::from(side) / 2.0).round() as u32).min(length - side)
        };
        Square { top: start(y, height), left: start(x, width), side }
    }

    /// The square of a picture, resized to `resolution`² pixels by a Lanczos filter with three lobes, also if it is smaller.
    pub(super) fn picture(self, picture: &RgbImage, resolution: u32) -> RgbImage {
        let square = imageops::crop_imm(picture, self.left, self.top, self.side, self.side);
        imageops::resize(&*square, resolution, resolution, FilterType::Lanczos3)
    }

    /// The square of a mask, resized to `resolution`² pixels by linear interpolation, which does not exceed the mask's values.
    pub(super) fn mask(self, mask: &GrayImage, resolution: u32) -> GrayImage {
        let square = imageops::crop_imm(mask, self.left, self.top, self.side, self.side);
        imageops::resize(&*square, resolution, resolution, FilterType::Triangle)
    }

    /// (top, left) of the square, in pixels of the resized picture. SDXL's crop conditioning counts after resizing, as in
    /// diffusers' training.
    pub(super) fn top_left(self, resolution: usize) -> [usize; 2] {
        let scaled = |at: u32| (f64::from(at) * resolution as f64 / f64::from(self.side)).round() as usize;
        [scaled(self.top), scaled(self.left)]
    }
}

/// The centre of mass (y, x) of a mask's values. `None`: all are 0.
fn centre_of_mass(mask: &GrayImage) -> Option<[f64; 2]> {
    let (mut sum, mut ys, mut xs) = (0.0, 0.0, 0.0);
    for (x, y, pixel) in mask.enumerate_pixels() {
        let value = f64::from(pixel.0[0]);
        sum += value;
        ys += value * (f64::from(y) + 0.5);
        xs += value * (f64::from(x) + 0.5);
    }
    (sum > 0.0).then(|| [ys / sum, xs / sum])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(top: u32, left: u32, side: u32) -> Square {
        Square { top, left, side }
    }

    /// Protects the square: in the middle without a mask, around the mask's white part with one, and always
    /// inside of the picture.
    #[test]
    fn the_square_follows_the_mask() {
        assert_eq!(Square::choose((30, 10), None), square(0, 10, 10));
        assert_eq!(Square::choose((10, 31), None), square(11, 0, 10));
        let spot = |x0: u32, x1: u32| {
            GrayImage::from_fn(30, 10, |x, _| [if (x0..x1).contains(&x) { 255 } else { 0 }].into())
        };
        assert_eq!(Square::choose((30, 10), Some(&spot(16, 18))), square(0, 12, 10));
        assert_eq!(Square::choose((30, 10), Some(&spot(0, 2))), square(0, 0, 10));
        assert_eq!(Square::choose((30, 10), Some(&spot(29, 30))), square(0, 20, 10));
        assert_eq!(
            Square::choose((30, 10), Some(&spot(0, 0))),
            square(0, 10, 10),
            "a black mask has no centre"
        );
        assert_eq!(Square::choose((1, 1), None), square(0, 0, 1));
    }

    /// Protects the centre of mass: it weights values, and positions are centres of pixels.
    #[test]
    fn the_centre_is_weighted() {
        let mask = GrayImage::from_raw(3, 1, vec![100, 0, 50]).expect("a mask");
        let [y, x] = centre_of_mass(&mask).expect("a centre");
        assert!((y - 0.5).abs() < 1e-12 && (x - (0.5 * 100.0 + 2.5 * 50.0) / 150.0).abs() < 1e-12);
    }

    /// Protects the crop's position, which is in resized pixels.
    #[test]
    fn the_crop_is_scaled() {
        assert_eq!(square(0, 240, 960).top_left(512), [0, 128]);
        assert_eq!(square(3, 0, 10).top_left(1024), [307, 0]);
        assert_eq!(square(1, 0, 2).top_left(1), [1, 0], "rounded");
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
        let seen = square(0, 10, 10).picture(&picture, 16);
        assert!(seen.pixels().all(|p| p.0 == [9, 8, 7]));
        let mask = GrayImage::from_pixel(30, 10, [77].into());
        assert!(square(0, 10, 10).mask(&mask, 7).pixels().all(|p| p.0 == [77]));
    }
}
