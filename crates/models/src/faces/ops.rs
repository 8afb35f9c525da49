//! The ops of the face networks on tensors (H, W, C), f32, as TFLite defines them.

use calotype_tensor::{DType, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

/// How a window goes over a picture, whose outside is zeros.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Window {
    /// In both directions.
    pub stride: usize,
    /// Rows above the picture, and columns on its left.
    pub pad: [usize; 2],
    /// Height and width of the result.
    pub size: [usize; 2],
}

/// Height, width and channels.
fn shape_of(x: &Tensor) -> [usize; 3] {
    x.shape().try_into().unwrap_or_else(|_| panic!("expected (H, W, C), found {:?}", x.shape()))
}

impl Window {
    /// The place in the picture (height, width) that lies below the window's element (ky, kx) at (y, x), unless it is outside.
    fn place(&self, [y, x]: [usize; 2], [ky, kx]: [usize; 2], [height, width]: [usize; 2]) -> Option<usize> {
        let row = (y * self.stride + ky).checked_sub(self.pad[0]).filter(|row| *row < height)?;
        let column = (x * self.stride + kx).checked_sub(self.pad[1]).filter(|column| *column < width)?;
        Some(row * width + column)
    }
}

/// x (H, W, C) → (Ho, Wo, ky · kx · C): what lies below the window at each place, a row of a product.
pub fn patches(x: &Tensor, window: &Window, kernel: [usize; 2]) -> Tensor {
    let [height, width, channels] = shape_of(x);
    if kernel == [1, 1] && window.stride == 1 {
        return x.clone();
    }
    let ([ho, wo], [ky, kx]) = (window.size, kernel);
    let (from, mut result) = (x.f32s(), Tensor::zeros(&[ho, wo, ky * kx * channels], DType::F32));
    for (at, patch) in result.f32s_mut().chunks_exact_mut(ky * kx * channels).enumerate() {
        for (k, to) in patch.chunks_exact_mut(channels).enumerate() {
            if let Some(place) = window.place([at / wo, at % wo], [k / kx, k % kx], [height, width]) {
                to.copy_from_slice(&from[place * channels..][..channels]);
            }
        }
    }
    result
}

/// x (H, W, C), weight (ky, kx, C), bias (C) → (Ho, Wo, C): each channel with its own kernel.
pub fn depthwise_conv_2d(x: &Tensor, window: &Window, weight: &Tensor, bias: &Tensor) -> Tensor {
    let ([height, width, channels], [_, kx, _]) = (shape_of(x), shape_of(weight));
    let [ho, wo] = window.size;
    let mut result = Tensor::zeros(&[ho, wo, channels], DType::F32);
    let (from, weight, bias) = (x.f32s(), weight.f32s(), bias.f32s());
    let rows = result.f32s_mut().par_chunks_exact_mut(wo * channels);
    rows.enumerate().for_each(|(y, row)| {
        for (x, sum) in row.chunks_exact_mut(channels).enumerate() {
            sum.copy_from_slice(bias);
            for (k, factors) in weight.chunks_exact(channels).enumerate() {
                if let Some(place) = window.place([y, x], [k / kx, k % kx], [height, width]) {
                    add_product(sum, &from[place * channels..][..channels], factors);
                }
            }
        }
    });
    result
}

/// sum += a · b, element by element.
fn add_product(sum: &mut [f32], a: &[f32], b: &[f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum += a * b;
    }
}

/// x + other.
pub fn add(x: &Tensor, other: &Tensor) -> Tensor {
    let mut sum = x.clone();
    sum.f32s_mut().iter_mut().zip(other.f32s()).for_each(|(sum, other)| *sum += other);
    sum
}

/// max(x, 0).
pub fn relu(mut x: Tensor) -> Tensor {
    x.f32s_mut().iter_mut().for_each(|value| *value = value.max(0.0));
    x
}

/// x (H, W, C), slope (C) → x where it is positive, else x · slope.
pub fn prelu(x: &Tensor, slope: &Tensor) -> Tensor {
    let mut result = x.clone();
    for pixel in result.f32s_mut().chunks_exact_mut(slope.numel()) {
        let with_slopes = pixel.iter_mut().zip(slope.f32s());
        with_slopes.for_each(|(value, slope)| *value = value.max(0.0) + value.min(0.0) * slope);
    }
    result
}

/// x (H, W, C) → (H, W, C + channels): zeros behind the others.
pub fn pad_channels(x: &Tensor, channels: usize) -> Tensor {
    let [height, width, before] = shape_of(x);
    let mut result = Tensor::zeros(&[height, width, before + channels], DType::F32);
    let to = result.f32s_mut().chunks_exact_mut(before + channels);
    to.zip(x.f32s().chunks_exact(before)).for_each(|(to, from)| to[..before].copy_from_slice(from));
    result
}

/// x (H, W, C) → (H / 2, W / 2, C): the largest of each 2 × 2 pixels.
pub fn max_pool_2d(x: &Tensor) -> Tensor {
    let [height, width, channels] = shape_of(x);
    let mut result = Tensor::full(&[height / 2, width / 2, channels], f32::NEG_INFINITY, DType::F32);
    let to = result.f32s_mut();
    for (place, pixel) in x.f32s().chunks_exact(channels).enumerate() {
        let at = place / width / 2 * (width / 2) + place % width / 2;
        let largest = &mut to[at * channels..][..channels];
        largest.iter_mut().zip(pixel).for_each(|(largest, value)| *largest = largest.max(*value));
    }
    result
}

/// x (H, W, C) → (2 H, 2 W, C), bilinear, with pixels' middles at halves.
pub fn resize_bilinear(x: &Tensor) -> Tensor {
    let [height, width, channels] = shape_of(x);
    let mut result = Tensor::zeros(&[2 * height, 2 * width, channels], DType::F32);
    let from = x.f32s();
    for (at, to) in result.f32s_mut().chunks_exact_mut(channels).enumerate() {
        let [rows, columns] = [(at / (2 * width), height), (at % (2 * width), width)].map(neighbours);
        for (row, down) in rows {
            for (column, across) in columns {
                let pixel = &from[(row * width + column) * channels..][..channels];
                to.iter_mut().zip(pixel).for_each(|(to, value)| *to += value * (down * across));
            }
        }
    }
    result
}

/// The two places among `count` beside the middle of place `at` among 2 · `count`, with their weights.
fn neighbours((at, count): (usize, usize)) -> [(usize, f32); 2] {
    let other = if at % 2 == 0 { (at / 2).saturating_sub(1) } else { (at / 2 + 1).min(count - 1) };
    [(at / 2, 0.75), (other, 0.25)]
}

/// x (H, W, 4 C) → (2 H, 2 W, C): the channels of a pixel become 2 × 2 pixels.
pub fn depth_to_space(x: &Tensor) -> Tensor {
    let [height, width, all] = shape_of(x);
    let channels = all / 4;
    let mut result = Tensor::zeros(&[2 * height, 2 * width, channels], DType::F32);
    let from = x.f32s();
    for (at, to) in result.f32s_mut().chunks_exact_mut(channels).enumerate() {
        let (row, column) = (at / (2 * width), at % (2 * width));
        let block = (row % 2 * 2 + column % 2) * channels;
        to.copy_from_slice(&from[(row / 2 * width + column / 2) * all + block..][..channels]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        Tensor::from_vec((0..shape.iter().product::<usize>()).map(|i| i as f32).collect(), shape)
    }

    /// Protects the ops that move values: each by a case that is plain to see.
    #[test]
    fn values_that_move() {
        assert_eq!(depth_to_space(&counting(&[1, 2, 4])).to_vec(), [0., 1., 4., 5., 2., 3., 6., 7.]);
        assert_eq!(max_pool_2d(&counting(&[2, 4, 1])).to_vec(), [5., 7.]);
        assert_eq!(pad_channels(&counting(&[1, 2, 1]), 2).to_vec(), [0., 0., 0., 1., 0., 0.]);
        assert_eq!(resize_bilinear(&counting(&[1, 2, 1])).to_vec(), [0., 0.25, 0.75, 1., 0., 0.25, 0.75, 1.]);
        let slopes = Tensor::from_vec(vec![0.5, 2.0], &[2]);
        let x = Tensor::from_vec(vec![-1., -1., 3., 4.], &[1, 2, 2]);
        assert_eq!(prelu(&x, &slopes).to_vec(), [-0.5, -2., 3., 4.]);
        assert_eq!(relu(add(&x, &x)).to_vec(), [0., 0., 6., 8.]);
    }

    /// Protects the window: its padding above and on the left, and zeros outside of the picture.
    #[test]
    fn a_window_over_a_picture() {
        let x = counting(&[2, 2, 1]);
        let ones = Tensor::full(&[3, 3, 1], 1.0, DType::F32);
        let bias = Tensor::full(&[1], 10.0, DType::F32);
        let around = Window { stride: 1, pad: [1, 1], size: [2, 2] };
        assert_eq!(depthwise_conv_2d(&x, &around, &ones, &bias).to_vec(), [16.; 4]);
        let below = Window { stride: 2, pad: [0, 0], size: [1, 1] };
        assert_eq!(patches(&x, &below, [3, 3]).to_vec(), [0., 1., 0., 2., 3., 0., 0., 0., 0.]);
        let above = Window { stride: 2, pad: [1, 0], size: [1, 1] };
        assert_eq!(patches(&x, &above, [3, 3]).to_vec(), [0., 0., 0., 0., 1., 0., 2., 3., 0.]);
    }
}
