//! Encodes pictures that are too large to encode at once. The encoder's levels with the most values are computed in strips of rows.
//! Group norms use the moments of the whole picture, which are summed over all strips before a strip goes on. So the result is that of
//! encoding at once, but for rounding.

use std::ops::Range;

use calotype_tensor::{DType, Tensor, ops};
use rayon::prelude::*;

use super::vae::{DownEncoderBlock, Moments, Vae};
use crate::nn::{Conv2d, GroupNorm, ResnetBlock2D};

/// Pixels of a picture that is encoded at once: 1024 × 1024.
pub const AT_ONCE: usize = 1 << 20;

/// Mean and 1 / standard deviation of each group of channels.
type GroupMoments = Vec<(f32, f32)>;

impl Vae {
    /// [`Self::encode`] of one picture, with no more memory for a level than a picture of `at_once` pixels takes in the first.
    /// [`AT_ONCE`] suits. Levels that take more are computed in strips, which takes some 1.5 times as long.
    ///
    /// image (1, H, W, 3) from −1 to 1 → the moments of latents (1, H/8, W/8, C).
    ///
    /// # Panics
    /// If there is more than one picture.
    pub fn encode_in_rows(&self, image: &Tensor, at_once: usize) -> Moments {
        assert_eq!(image.dim(0), 1, "one picture");
        let encoder = &self.encoder;
        let most = at_once * encoder.conv_in.bias.get().numel();
        let mut x = image.clone();
        for (i, block) in encoder.down_blocks.iter().enumerate() {
            let first = (i == 0).then_some(&encoder.conv_in);
            let channels = block.resnets.last().map_or(1, |resnet| resnet.norm2.weight.get().numel());
            let pixels = x.dim(1) * x.dim(2);
            x = if block.downsampler.is_some() && x.dim(1) > 1 && pixels * channels > most {
                let rows = (most / channels / 4 / x.dim(2)).next_multiple_of(2).max(2);
                level_in_rows(first, block, &x, rows)
            } else {
                block.forward(first.map_or(x.clone(), |conv| conv.forward(&x)))
            };
        }
        self.moments(encoder.after_blocks(&x))
    }
}

/// A level with a downsampler, in strips of `rows` rows of its input, an even number.
fn level_in_rows(first: Option<&Conv2d>, block: &DownEncoderBlock, x: &Tensor, rows: usize) -> Tensor {
    let norms: Vec<&GroupNorm> =
        block.resnets.iter().flat_map(|resnet| [&resnet.norm1, &resnet.norm2]).collect();
    // Each 3 × 3 convolution sees a row above and one below. An even number of rows keeps the downsampler's place.
    let halo = (2 * block.resnets.len() + usize::from(first.is_some())).next_multiple_of(2);
    let height = x.dim(1);
    // A last odd row belongs to the strip above, as the downsampler makes nothing of it alone.
    let end = |top: usize| if top + rows + 1 >= height { height } else { top + rows };
    let strips = || (0..height / 2 * 2).step_by(rows).map(|top| top..end(top));
    let run = |strip: &Range<usize>, known: &[GroupMoments]| {
        let seen = strip.start.saturating_sub(halo)..height.min(strip.end + halo + 2);
        let ran = run_level(first, block, rows_of(x, seen.clone()), known);
        (ran, seen.start)
    };
    let mut known: Vec<GroupMoments> = Vec::new();
    for norm in &norms {
        let mut sums = vec![(0.0, 0.0); norm.groups];
        let mut count = 0;
        for strip in strips() {
            let (h, start) = run(&strip, &known);
            let own = rows_of(&h, strip.start - start..strip.end - start);
            count += own.numel() / norm.groups;
            add_sums(&own, &mut sums);
        }
        let moments = |(sum, squares): &(f64, f64)| {
            let mean = sum / count as f64;
            let variance = (squares / count as f64 - mean * mean).max(0.0);
            (mean as f32, (1.0 / (variance + f64::from(norm.eps)).sqrt()) as f32)
        };
        known.push(sums.iter().map(moments).collect());
    }
    let downsampler = block.downsampler.as_ref().expect("a level with a downsampler");
    let halves: Vec<Tensor> = strips()
        .map(|strip| {
            let (h, start) = run(&strip, &known);
            // The downsampler also sees the row below the strip. It pads below the last row.
            let end = height.min(strip.end + 1);
            downsampler.forward(&rows_of(&h, strip.start - start..end - start))
        })
        .collect();
    join_rows(&halves)
}

/// Runs a level as far as the moments of its norms are known: to the input of the next norm, or to the downsampler.
fn run_level(first: Option<&Conv2d>, block: &DownEncoderBlock, x: Tensor, known: &[GroupMoments]) -> Tensor {
    let mut h = first.map_or(x.clone(), |conv| conv.forward(&x));
    let mut known = known.iter();
    for ResnetBlock2D { norm1, conv1, norm2, conv2, conv_shortcut, .. } in &block.resnets {
        let Some(moments) = known.next() else { return h };
        let inner = conv1.forward(&norm_silu(norm1, moments, &h));
        let Some(moments) = known.next() else { return inner };
        let shortcut = conv_shortcut.as_ref().map_or(h.clone(), |conv| conv.forward(&h));
        h = conv2.forward_fused(&norm_silu(norm2, moments, &inner), None, Some(&shortcut));
    }
    h
}

/// Adds each group's sum and sum of squares to `sums`.
fn add_sums(x: &Tensor, sums: &mut [(f64, f64)]) {
    let channels = x.last_dim();
    let width = channels / sums.len();
    let values = x.to_dtype(DType::F32);
    let of_row = |row: &[f32]| {
        let mut own = vec![(0.0, 0.0); sums.len()];
        for (i, x) in row.iter().enumerate() {
            let sum: &mut (f64, f64) = &mut own[i % channels / width];
            sum.0 += f64::from(*x);
            sum.1 += f64::from(*x) * f64::from(*x);
        }
        own
    };
    // Rows are added in order, so that the number of threads does not matter.
    let rows: Vec<Vec<(f64, f64)>> = values.f32s().par_chunks(x.dim(2) * channels).map(of_row).collect();
    for row in rows {
        for (sum, own) in sums.iter_mut().zip(row) {
            *sum = (sum.0 + own.0, sum.1 + own.1);
        }
    }
}

/// Normalises by given moments, and applies SiLU.
fn norm_silu(norm: &GroupNorm, moments: &GroupMoments, x: &Tensor) -> Tensor {
    let (weight, bias) = (norm.weight.get().to_vec(), norm.bias.get().to_vec());
    let width = weight.len() / norm.groups;
    let affine: Vec<(f32, f32)> = (0..weight.len())
        .map(|c| {
            let (mean, scale) = moments[c / width];
            (scale * weight[c], bias[c] - mean * scale * weight[c])
        })
        .collect();
    let mut values = x.to_vec();
    values.par_chunks_mut(x.dim(2) * weight.len()).for_each(|row| {
        for (i, x) in row.iter_mut().enumerate() {
            let (scale, shift) = affine[i % affine.len()];
            let y = *x * scale + shift;
            *x = y / (1.0 + (-y).exp());
        }
    });
    Tensor::from_vec(values, x.shape()).to_dtype(x.dtype())
}

/// Rows of an image (1, H, W, C).
fn rows_of(x: &Tensor, rows: Range<usize>) -> Tensor {
    let [_, height, width, channels] = [0, 1, 2, 3].map(|i| x.dim(i));
    let own = ops::slice_batch(&x.reshape(&[height, width, channels]), rows.start, rows.len());
    own.reshape(&[1, rows.len(), width, channels])
}

/// Images (1, h, W, C), one below the other.
fn join_rows(parts: &[Tensor]) -> Tensor {
    let (width, channels) = (parts[0].dim(2), parts[0].dim(3));
    let parts: Vec<Tensor> = parts.iter().map(|part| part.reshape(&part.shape()[1..])).collect();
    let all = ops::cat_batch(&parts.iter().collect::<Vec<_>>());
    all.reshape(&[1, all.dim(0), width, channels])
}
