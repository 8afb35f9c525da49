//! Enlarging and cutting images.

use super::check;
use crate::backend::Move;
use crate::tape::record;
use crate::tensor::Tensor;

/// x (B, H, W, C) → (B, 2H, 2W, C): each pixel becomes four.
///
/// # Panics
/// If x is no image.
pub fn upsample_nearest2x(x: &Tensor) -> Tensor {
    check::image("upsample_nearest2x", x);
    let y = x.kernels().moved(Move::Upsample, &[x]);
    record(y, &[x.node()], |dy| vec![Some(dy.kernels().moved(Move::UpsampleGrad, &[dy]))])
}

/// x (B, H, W, C) → (B, height, width, C): without the lines below and the columns on the right that are
/// too many.
///
/// # Panics
/// If x is no image, `height` is more than H or `width` more than W.
pub fn crop(x: &Tensor, height: usize, width: usize) -> Tensor {
    let [_, h, w, _] = check::image("crop", x);
    assert!(height <= h && width <= w, "crop: size: expected at most {h} × {w}, found {height} × {width}");
    let y = x.kernels().moved(Move::Canvas { height, width }, &[x]);
    let back = Move::Canvas { height: h, width: w };
    record(y, &[x.node()], move |dy| vec![Some(dy.kernels().moved(back, &[dy]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a cropped image stays in its place, in every image of a batch.
    #[test]
    fn crop_keeps_the_upper_left() {
        let x = Tensor::from_vec((0..2 * 3 * 4).map(|i| i as f32).collect(), &[2, 3, 4, 1]);
        let y = crop(&x, 2, 3);
        assert_eq!(y.shape(), [2, 2, 3, 1]);
        assert_eq!(y.f32s(), [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 12.0, 13.0, 14.0, 16.0, 17.0, 18.0]);
    }
}
