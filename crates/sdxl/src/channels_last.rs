//! Conversion from torch's image layout to channels-last.

use calotype_tensor::Tensor;

/// Converts numbers in the order (B, C, h, w), in which torch draws them, to images (B, h, w, C).
pub fn channels_last(numbers: &[f32], [h, w, c]: [usize; 3]) -> Tensor {
    let at = |i: usize| {
        let (image, pixel, channel) = (i / (h * w * c), i / c % (h * w), i % c);
        numbers[(image * c + channel) * h * w + pixel]
    };
    Tensor::from_vec((0..numbers.len()).map(at).collect(), &[numbers.len() / (h * w * c), h, w, c])
}
