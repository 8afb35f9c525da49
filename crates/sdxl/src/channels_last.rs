//! Transposition, and the conversion from torch's image layout to channels-last.

use calotype_tensor::Tensor;

/// Converts numbers in the order (B, C, h, w), in which torch draws them, to images (B, h, w, C).
pub fn channels_last(numbers: &[f32], [h, w, c]: [usize; 3]) -> Tensor {
    let images = numbers.chunks(h * w * c).flat_map(|image| transposed(image, c, h * w));
    Tensor::from_vec(images.collect(), &[numbers.len() / (h * w * c), h, w, c])
}

/// A matrix (rows, columns) → (columns, rows).
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
}
