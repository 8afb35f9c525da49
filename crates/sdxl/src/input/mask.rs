//! The mask of an inpainting, at the size of the pictures to make.

use calotype_tensor::Tensor;
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

use super::{Fit, InputImage, InputMask};
use crate::error::ArgumentError;

/// The least grey that is painted.
const WHITE: u8 = 128;
/// The most pixels over which painted parts fade into preserved ones.
const FEATHER: usize = 8;

/// Which pixels are painted; the others are preserved.
pub(crate) struct PixelMask {
    width: usize,
    height: usize,
    painted: Vec<bool>,
    /// The weight of the painted picture in each pixel.
    weights: Vec<f32>,
}

impl PixelMask {
    /// Fits a mask to the pictures, in the same way as the picture that it belongs to.
    ///
    /// # Errors
    /// The mask has another aspect ratio than the picture, or is black where the picture is used.
    pub fn new(mask: &InputMask, image: &InputImage, fit: Fit) -> Result<PixelMask, ArgumentError> {
        let ((w, h), (mask_w, mask_h)) = (image.pixels.dimensions(), mask.pixels.dimensions());
        if !alike((w, h), (mask_w, mask_h)) {
            let expected = format!("the aspect ratio of the image, {w} × {h}");
            return Err(ArgumentError::new("mask", expected, format!("{mask_w} × {mask_h}")));
        }
        let grey = if (w, h) == (mask_w, mask_h) {
            fit.part(&mask.pixels)
        } else {
            fit.part(&imageops::resize(&*mask.pixels, w, h, FilterType::Lanczos3))
        };
        let mask = PixelMask::of(&grey);
        if mask.painted.contains(&true) {
            return Ok(mask);
        }
        let expected = "white where the picture is to be painted";
        Err(ArgumentError::new("mask", expected, "black all over (of the part that is used)"))
    }

    fn of(grey: &GrayImage) -> PixelMask {
        let painted = grey.pixels().map(|pixel| pixel.0[0] >= WHITE).collect();
        let (width, height) = (grey.width() as usize, grey.height() as usize);
        let mask = PixelMask { width, height, painted, weights: Vec::new() };
        PixelMask { weights: mask.weights(), ..mask }
    }

    /// Whether each latent of `scale` × `scale` pixels is painted: 1 if any of its pixels is, else 0. (1, h, w, 1), f32.
    pub fn latents(&self, scale: usize) -> Tensor {
        let (width, height) = (self.width / scale, self.height / scale);
        let mut latents = vec![0.0; width * height];
        for (i, painted) in self.painted.iter().enumerate() {
            let (x, y) = (i % self.width / scale, i / self.width / scale);
            if *painted && x < width && y < height {
                latents[y * width + x] = 1.0;
            }
        }
        Tensor::from_vec(latents, &[1, height, width, 1])
    }

    /// A picture (1, H, W, C) with 0, which is mid-grey, in the painted part.
    pub fn hide(&self, picture: &Tensor) -> Tensor {
        let channels = picture.last_dim();
        let mut pixels = picture.to_vec();
        for (pixel, painted) in pixels.chunks_mut(channels).zip(&self.painted) {
            if *painted {
                pixel.fill(0.0);
            }
        }
        Tensor::from_vec(pixels, picture.shape())
    }

    /// Puts the preserved pixels of `picture` into `made` (RGB bytes). Inside of the painted part, near its edge, the pixels of
    /// both are mixed.
    pub fn preserve(&self, picture: &RgbImage, made: &mut [u8]) {
        for ((made, old), &weight) in made.chunks_mut(3).zip(picture.pixels()).zip(&self.weights) {
            for (made, old) in made.iter_mut().zip(old.0) {
                let mixed = f32::from(*made) * weight + f32::from(old) * (1.0 - weight);
                *made = if weight == 0.0 { old } else { mixed.round() as u8 };
            }
        }
    }

    /// The weight of the painted picture: 0 where the mask preserves, rising to 1 inside. The rise is as wide as [`FEATHER`], but
    /// at most half of a painted part's own half width, so that narrow strokes are painted too.
    fn weights(&self) -> Vec<f32> {
        let distance = self.distances();
        let ridge = self.largest_around(&distance);
        let weight =
            |(distance, ridge): (&f32, f32)| (distance / (ridge / 2.0).clamp(1.0, FEATHER as f32)).min(1.0);
        distance.iter().zip(ridge).map(weight).collect()
    }

    /// The distance of each pixel from the nearest preserved pixel; infinite if there is none. By sums of steps to neighbours, so
    /// up to 8 % too long in some directions.
    fn distances(&self) -> Vec<f32> {
        let (w, h) = (self.width, self.height);
        let mut distance: Vec<f32> =
            self.painted.iter().map(|p| if *p { f32::INFINITY } else { 0.0 }).collect();
        let at = |x: usize, y: usize| y * w + x;
        let mut relax = |i: usize, neighbour: Option<usize>, step: f32| {
            if let Some(neighbour) = neighbour {
                distance[i] = distance[i].min(distance[neighbour] + step);
            }
        };
        let diagonal = std::f32::consts::SQRT_2;
        for y in 0..h {
            for x in 0..w {
                let (left, up, right) = (x.checked_sub(1), y.checked_sub(1), (x + 1 < w).then_some(x + 1));
                relax(at(x, y), left.map(|x| at(x, y)), 1.0);
                relax(at(x, y), up.map(|y| at(x, y)), 1.0);
                relax(at(x, y), left.zip(up).map(|(x, y)| at(x, y)), diagonal);
                relax(at(x, y), right.zip(up).map(|(x, y)| at(x, y)), diagonal);
            }
        }
        for y in (0..h).rev() {
            for x in (0..w).rev() {
                let (left, right) = (x.checked_sub(1), (x + 1 < w).then_some(x + 1));
                let down = (y + 1 < h).then_some(y + 1);
                relax(at(x, y), right.map(|x| at(x, y)), 1.0);
                relax(at(x, y), down.map(|y| at(x, y)), 1.0);
                relax(at(x, y), left.zip(down).map(|(x, y)| at(x, y)), diagonal);
                relax(at(x, y), right.zip(down).map(|(x, y)| at(x, y)), diagonal);
            }
        }
        distance
    }

    /// The largest value among the pixels at most [`FEATHER`] columns and rows away.
    fn largest_around(&self, values: &[f32]) -> Vec<f32> {
        let (w, h) = (self.width, self.height);
        let range = |i: usize, end: usize| i.saturating_sub(FEATHER)..(i + FEATHER + 1).min(end);
        let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
        let rows: Vec<f32> =
            (0..w * h).map(|i| largest(&mut range(i % w, w).map(|x| values[i / w * w + x]))).collect();
        (0..w * h).map(|i| largest(&mut range(i / w, h).map(|y| rows[y * w + i % w]))).collect()
    }
}

/// Whether a mask's size is that of a picture, scaled and rounded.
fn alike((w, h): (u32, u32), (mask_w, mask_h): (u32, u32)) -> bool {
    let [w, h, mask_w, mask_h] = [w, h, mask_w, mask_h].map(u64::from);
    (w * mask_h).abs_diff(h * mask_w) <= w.max(h)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn mask(width: u32, height: u32, painted: impl Fn(u32, u32) -> bool) -> PixelMask {
        PixelMask::of(&GrayImage::from_fn(width, height, |x, y| [if painted(x, y) { 255 } else { 0 }].into()))
    }

    /// Protects thin strokes: a latent is painted if any of its pixels is.
    #[test]
    fn a_latent_is_painted_if_any_of_its_pixels_is() {
        let stroke = mask(32, 16, |x, y| x == 13 && y == 15);
        assert_eq!(stroke.latents(8).to_vec(), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }

    /// Protects preserved pixels: they are those of the picture, byte for byte. Deep inside, the painted pixels are unchanged. The
    /// pixels between are mixed on the painted side only. A narrow stroke is painted in full in its middle.
    #[test]
    fn preserved_pixels_stay() {
        let (wide, stroke) = ((20, 60), (70, 74));
        let mask = mask(80, 80, |x, _| (wide.0..wide.1).contains(&x) || (stroke.0..stroke.1).contains(&x));
        let old = RgbImage::from_fn(80, 80, |x, y| [x as u8, y as u8, 3].into());
        let mut made = vec![250; 80 * 80 * 3];
        mask.preserve(&old, &mut made);
        for (x, y, pixel) in old.enumerate_pixels() {
            let found = &made[3 * (y * 80 + x) as usize..][..3];
            match x {
                28..52 | 71..73 => assert_eq!(found, [250; 3], "{x}"),
                20..60 | 70..74 => assert!((pixel.0[0]..=250).contains(&found[0]), "{x}"),
                _ => assert_eq!(found, pixel.0, "{x}"),
            }
        }
        assert!(made[3 * 20] < made[3 * 24], "rises inwards");
    }

    /// Protects pictures that are painted all over: nothing is mixed, not even at the edges.
    #[test]
    fn all_white_keeps_nothing() {
        let mut made = vec![9; 16 * 16 * 3];
        mask(16, 16, |_, _| true).preserve(&RgbImage::new(16, 16), &mut made);
        assert_eq!(made, [9; 16 * 16 * 3]);
    }

    /// Protects the fit of mask and picture: the same size scaled is accepted, another aspect ratio and a black mask are refused.
    #[test]
    fn masks_belong_to_pictures() {
        let image = InputImage { name: String::new(), pixels: Arc::new(RgbImage::new(101, 67)) };
        let fit = Fit::new((101, 67), (96, 64), 8);
        let new = |w, h, grey: u8| {
            let pixels = Arc::new(GrayImage::from_pixel(w, h, [grey].into()));
            PixelMask::new(&InputMask { name: String::new(), pixels }, &image, fit)
        };
        for (w, h) in [(101, 67), (202, 134), (50, 33), (51, 34), (404, 268)] {
            assert!(new(w, h, 128).is_ok(), "{w} × {h}");
        }
        let refused = |w, h, grey| new(w, h, grey).err().expect("refused").to_string();
        assert_eq!(
            refused(67, 101, 255),
            "mask: expected the aspect ratio of the image, 101 × 67, found 67 × 101"
        );
        assert!(refused(64, 64, 255).ends_with("found 64 × 64"));
        assert!(refused(101, 67, 127).contains("found black all over"));
    }

    /// Protects what a UNet with 9 channels sees: grey where it paints.
    #[test]
    fn painted_pixels_are_hidden() {
        let picture = Tensor::from_vec(vec![0.5, 0.25, -1.0, 1.0], &[1, 1, 2, 2]);
        assert_eq!(mask(2, 1, |x, _| x == 1).hide(&picture).to_vec(), [0.5, 0.25, 0.0, 0.0]);
    }
}
