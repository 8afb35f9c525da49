//! The input of a vision transformer: a picture's patches and a class token, with their positions.

use calotype_tensor::ops;
use calotype_tensor::{DType, Tensor, Weight};

use super::{Linear, Parameter};
use crate::weights::{Weights, WeightsError};

/// The constant of PyTorch's bicubic interpolation.
const CUBIC_A: f64 = -0.75;

/// Patches and the class token, with their positions.
#[derive(Clone)]
pub struct VisionEmbeddings {
    /// (1, C): stands for the whole picture.
    pub class_embedding: Tensor,
    /// 3 · patch² → C. The checkpoint has a convolution whose stride is the patch's side; over patches that do not overlap, the
    /// two are the same.
    pub patch_embedding: Linear,
    /// (1 + patches, C).
    pub position_embedding: Tensor,
    /// The side of a picture, in pixels.
    pub side: usize,
    /// The side of a patch, in pixels.
    pub patch: usize,
}

impl VisionEmbeddings {
    /// The embeddings of square pictures of `side` pixels, in the dtype to compute in. `class_embedding` and `position_embedding` may
    /// have any shape of C and (1 + patches) · C elements.
    ///
    /// # Errors
    /// `patch_embedding` is missing or of another shape.
    pub(crate) fn load(
        weights: &Weights,
        [class_embedding, position_embedding]: [Tensor; 2],
        [side, patch]: [usize; 2],
        bias: bool,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let width = class_embedding.numel();
        let layer = weights.sub("patch_embedding");
        let weight = layer.tensor("weight", &[width, 3, patch, patch])?.reshape(&[width, 3 * patch * patch]);
        let bias = bias.then(|| layer.tensor("bias", &[width])).transpose()?;
        Ok(Self {
            class_embedding: class_embedding.reshape(&[1, width]).to_dtype(dtype),
            patch_embedding: Linear {
                weight: Parameter::fixed(Weight::from_tensor(&weight.to_dtype(dtype))),
                bias: bias.map(Parameter::fixed),
                is_conv1x1: false,
                lora: None,
            },
            position_embedding: position_embedding
                .reshape(&[position_embedding.numel() / width, width])
                .to_dtype(dtype),
            side,
            patch,
        })
    }

    /// pictures (B, S, S, 3), f32, normalised, with S the side → (B, 1 + patches, C): the class token, then the patches row by row, with
    /// their positions.
    ///
    /// # Panics
    /// If the pictures have another size.
    pub fn forward(&self, pictures: &Tensor) -> Tensor {
        let batch = pictures.dim(0);
        assert_eq!(pictures.shape(), [batch, self.side, self.side, 3], "pictures of the network's size");
        let patches = patches(pictures, self.patch).to_dtype(self.class_embedding.dtype());
        let embedded = self.patch_embedding.forward(&patches); // (B, P, C)
        let (count, width) = (embedded.dim(1), embedded.dim(2));
        let rows = embedded.reshape(&[batch * count, width]);
        let tokens = |i| {
            let all = ops::cat_batch(&[&self.class_embedding, &ops::slice_batch(&rows, i * count, count)]);
            ops::add(&all, &self.position_embedding).reshape(&[1, 1 + count, width])
        };
        let each: Vec<Tensor> = (0..batch).map(tokens).collect();
        ops::cat_batch(&each.iter().collect::<Vec<_>>())
    }
}

/// pictures (B, S, S, 3) → (B, patches, 3 · patch²), in the order of a convolution's weight: channel, row, column. What is left at
/// the right and below, where the patch does not divide S, is left out.
fn patches(pictures: &Tensor, patch: usize) -> Tensor {
    let (batch, side) = (pictures.dim(0), pictures.dim(1));
    let (pixels, across) = (pictures.to_vec(), side / patch);
    let mut out = Vec::with_capacity(batch * across * across * 3 * patch * patch);
    for image in pixels.chunks(side * side * 3) {
        for corner in (0..across * across).map(|i| (i / across * patch, i % across * patch)) {
            for i in 0..3 * patch * patch {
                let (channel, row, column) = (i / (patch * patch), i / patch % patch, i % patch);
                out.push(image[((corner.0 + row) * side + corner.1 + column) * 3 + channel]);
            }
        }
    }
    Tensor::from_vec(out, &[batch, across * across, 3 * patch * patch])
}

/// positions (1 + from², C) of the class token and of a square grid → (1 + to², C): the grid resampled as PyTorch's
/// `interpolate(mode="bicubic")` does, the class token's position as it is.
pub(crate) fn resample_positions(positions: &Tensor, to: usize) -> Tensor {
    let (values, width) = (positions.to_vec(), positions.dim(1));
    let from = (positions.dim(0) - 1).isqrt();
    if from == to {
        return positions.clone();
    }
    let (class, grid) = values.split_at(width);
    let taps: Vec<_> = (0..to).map(|i| cubic_taps(i, from, to)).collect();
    let mut out = class.to_vec();
    for (row, column) in (0..to * to).map(|i| (i / to, i % to)) {
        let start = out.len();
        out.resize(start + width, 0.0);
        for (y, wy) in taps[row] {
            for (x, wx) in taps[column] {
                let source = &grid[(y * from + x) * width..][..width];
                out[start..].iter_mut().zip(source).for_each(|(sum, value)| *sum += wy * wx * value);
            }
        }
    }
    Tensor::from_vec(out, &[1 + to * to, width])
}

/// The four places of a line of `from` values, and their weights, that make value `i` of `to`: half-pixel centres, the edge repeated.
fn cubic_taps(i: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    let center = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let base = center.floor();
    [-1.0, 0.0, 1.0, 2.0].map(|offset| {
        let place = (base + offset).clamp(0.0, from as f64 - 1.0) as usize;
        (place, cubic(center - base - offset) as f32)
    })
}

/// The cubic convolution kernel.
fn cubic(x: f64) -> f64 {
    let (a, x) = (CUBIC_A, x.abs());
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
