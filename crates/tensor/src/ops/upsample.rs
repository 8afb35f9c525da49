//! Enlarging and cutting images.

use crate::Tensor;
use crate::cpu::layout;
use crate::tape::record;

/// x (B, H, W, C) → (B, 2H, 2W, C): each pixel becomes four.
pub fn upsample_nearest2x(x: &Tensor) -> Tensor {
    let y = layout::upsample_nearest2x(x);
    record(y, &[Some(x)], |dy| vec![Some(layout::upsample_nearest2x_backward(dy))])
}

/// x (B, H, W, C) → (B, height, width, C): without the lines below and the columns on the right that are
/// too many. `height` is at most H, `width` at most W.
pub fn crop(x: &Tensor, height: usize, width: usize) -> Tensor {
    let &[_, h, w, _] = x.shape() else { panic!("an image is (B, H, W, C), found {:?}", x.shape()) };
    assert!(height <= h && width <= w, "({height}, {width}) of an image of ({h}, {w})");
    let y = layout::resize_canvas(x, height, width);
    record(y, &[Some(x)], move |dy| vec![Some(layout::resize_canvas(dy, h, w))])
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
