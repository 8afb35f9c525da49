//! Taking a part of the last dimension.

use crate::Tensor;
use crate::cpu::layout;
use crate::tape::record;

/// Columns `start..start + len` of the last dimension: x (.., C) → (.., len).
pub fn slice_last(x: &Tensor, start: usize, len: usize) -> Tensor {
    let width = x.last_dim();
    assert!(start + len <= width, "columns {start}..{} of {width}", start + len);
    let y = layout::columns(x, start, len);
    record(y, &[Some(x)], move |dy| {
        let zeros = |width: usize| {
            let mut shape = dy.shape().to_vec();
            shape[dy.shape().len() - 1] = width;
            Tensor::zeros(&shape, dy.dtype())
        };
        let (before, after) = (zeros(start), zeros(width - start - len));
        let parts = [&before, dy, &after].into_iter().filter(|part| part.last_dim() > 0);
        vec![Some(layout::concat(&parts.collect::<Vec<_>>()))]
    })
}

/// The top left `height` × `width` pixels: x (B, H, W, C) → (B, height, width, C).
pub fn crop(x: &Tensor, height: usize, width: usize) -> Tensor {
    let &[b, h, w, c] = x.shape() else { panic!("an image is (B, H, W, C), found {:?}", x.shape()) };
    let lines = slice_last(&x.reshape(&[b, h, w * c]), 0, width * c);
    slice_last(&lines.reshape(&[b, h * width * c]), 0, height * width * c).reshape(&[b, height, width, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    fn ramp(shape: &[usize]) -> Tensor {
        Tensor::from_vec((0..shape.iter().product()).map(|i: usize| i as f32).collect(), shape)
    }

    /// A slice is those columns, and its gradient goes to them and nowhere else.
    #[test]
    fn slice_and_back() {
        let x = ramp(&[2, 5]).var();
        let y = slice_last(&x, 1, 2);
        assert_eq!(y.to_vec(), [1.0, 2.0, 6.0, 7.0]);
        let gradients = ops::mul(&y, &y.detach()).backward();
        let dx = gradients.get(&x).expect("x is used").to_vec();
        assert_eq!(dx, [0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 6.0, 7.0, 0.0, 0.0]);
    }

    /// Cropping keeps the upper left corner of every image of a batch.
    #[test]
    fn crop_keeps_the_corner() {
        let x = ramp(&[2, 3, 2, 2]).var();
        let y = crop(&x, 2, 1);
        assert_eq!(y.to_vec(), [0.0, 1.0, 4.0, 5.0, 12.0, 13.0, 16.0, 17.0]);
        let gradients = y.backward();
        let dx = gradients.get(&x).expect("x is used").to_vec();
        let one = |i: &f32| if y.to_vec().contains(i) { 1.0 } else { 0.0 };
        assert_eq!(dx, x.to_vec().iter().map(one).collect::<Vec<_>>());
    }
}
