//! Group normalisation of channels-last images, forward and backward.
//!
//! Each image is cut into runs of pixels. The moments are taken about a value near the group's
//! mean, in two steps (run, image), so that a large offset costs no digits.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::{from_slice, to_vec, with_element};
use super::isa::{isa, simd_fn};
use super::math::{self, Element};
use super::reduce::{rows_per_run, sum_rows, to_f32};
use crate::backend::GroupNormArgs;
use crate::tensor::Tensor;

/// How a (B, .., C) tensor is cut into groups of channels.
#[derive(Clone, Copy)]
struct Groups {
    images: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
}

impl Groups {
    fn of(x: &Tensor, groups: usize) -> Groups {
        let (images, channels) = (x.dim(0), x.last_dim());
        assert_eq!(channels % groups, 0, "{channels} channels in {groups} groups");
        Groups { images, pixels: x.numel() / (images * channels).max(1), channels, groups }
    }

    /// Channels of a group.
    fn width(self) -> usize {
        self.channels / self.groups
    }

    fn image_len(self) -> usize {
        self.pixels * self.channels
    }

    fn run_len(self) -> usize {
        rows_per_run(self.channels) * self.channels
    }

    fn runs(self) -> usize {
        self.image_len().div_ceil(self.run_len())
    }

    /// `f` of every run of every image, in order: f(image, range of elements).
    fn map_runs<R: Send>(self, f: impl Fn(usize, std::ops::Range<usize>) -> R + Sync) -> Vec<R> {
        let run = |i: usize| {
            let (image, run) = (i / self.runs(), i % self.runs());
            let start = run * self.run_len();
            let end = (start + self.run_len()).min(self.image_len());
            f(image, image * self.image_len() + start..image * self.image_len() + end)
        };
        (0..self.images * self.runs()).into_par_iter().map(run).collect()
    }

    /// Each image's f(image, run of `y`, first element of the run).
    fn for_runs<T: Send>(self, y: &mut [T], f: impl Fn(usize, &mut [T], usize) + Sync) {
        let images = y.par_chunks_mut(self.image_len().max(1)).enumerate();
        images.for_each(|(image, y)| {
            let runs = y.par_chunks_mut(self.run_len()).enumerate();
            runs.for_each(|(i, y)| f(image, y, image * self.image_len() + i * self.run_len()));
        });
    }
}

/// A group norm whose moments are known: act((x − mean) · scale + bias), by image and channel.
struct GroupNorm {
    groups: Groups,
    /// By image and group.
    rstd: Vec<f32>,
    /// By image and channel.
    mean: Vec<f32>,
    /// By image and channel: weight / standard deviation.
    scale: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    silu: bool,
}

/// The normalised x (B, .., C), and mean and 1 / √(variance + eps) of each group, (B, groups, 2).
pub(super) fn forward(norm: GroupNormArgs, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
    let groups = Groups::of(x, norm.groups);
    let moments = moments(x, groups, norm.eps);
    let y = GroupNorm::new(groups, &moments, to_vec(weight), to_vec(bias), norm.silu).forward(x);
    [y, from_slice(moments.as_flattened(), &[groups.images, groups.groups, 2])]
}

/// The gradients of x, if it is asked for, of the weight and of the bias.
pub(super) fn backward(
    norm: GroupNormArgs,
    [x, weight, bias, moments]: [&Tensor; 4],
    dy: &Tensor,
    with_dx: bool,
) -> (Option<Tensor>, [Tensor; 2]) {
    let moments = moments.f32s().as_chunks::<2>().0;
    let groups = Groups::of(x, norm.groups);
    GroupNorm::new(groups, moments, to_vec(weight), to_vec(bias), norm.silu).backward(x, dy, with_dx)
}

simd_fn! {
    /// Adds Σ (x − shift) and Σ (x − shift)² over a run's pixels to `sum` and `square`, by channel.
    fn run_moments<T: Element>(x: &[T], shift: &[f32], sum: &mut [f32], square: &mut [f32]) {
        let channels = shift.len();
        let (sum, square) = (&mut sum[..channels], &mut square[..channels]);
        let mut quads = x.chunks_exact(4 * channels);
        // Four pixels at a time: the accumulators go through memory a quarter as often.
        for quad in &mut quads {
            let (x0, rest) = quad.split_at(channels);
            let (x1, rest) = rest.split_at(channels);
            let (x2, x3) = rest.split_at(channels);
            let x3 = &x3[..channels];
            for c in 0..channels {
                let (a, b) = (x0[c].to_f32() - shift[c], x1[c].to_f32() - shift[c]);
                let (d, e) = (x2[c].to_f32() - shift[c], x3[c].to_f32() - shift[c]);
                sum[c] += (a + b) + (d + e);
                square[c] += (a * a + b * b) + (d * d + e * e);
            }
        }
        for pixel in quads.remainder().chunks_exact(channels) {
            for c in 0..channels {
                let a = pixel[c].to_f32() - shift[c];
                sum[c] += a;
                square[c] += a * a;
            }
        }
    }
}

simd_fn! {
    fn normalize_run<T: Element, F: Fn(f32) -> f32>(
        x: &[T], y: &mut [T], mean: &[f32], scale: &[f32], bias: &[f32], act: &F,
    ) {
        let channels = mean.len();
        let (scale, bias) = (&scale[..channels], &bias[..channels]);
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for c in 0..channels {
                y[c] = T::from_f32(act((x[c].to_f32() - mean[c]) * scale[c] + bias[c]));
            }
        }
    }
}

simd_fn! {
    /// Adds Σ dz and Σ dz (x − mean) over a run's pixels, by channel; dz = dy · act'(z).
    fn gradient_sums_run<T: Element, F: Fn(f32) -> f32>(
        x: &[T], dy: &[T], mean: &[f32], scale: &[f32], bias: &[f32], dact: &F,
        sum: &mut [f32], product: &mut [f32],
    ) {
        let channels = mean.len();
        let (scale, bias) = (&scale[..channels], &bias[..channels]);
        let (sum, product) = (&mut sum[..channels], &mut product[..channels]);
        let at = |x: T, dy: T, c: usize| {
            let centred = x.to_f32() - mean[c];
            let dz = dy.to_f32() * dact(centred * scale[c] + bias[c]);
            (dz, dz * centred)
        };
        let (x_pairs, dy_pairs) = (x.chunks_exact(2 * channels), dy.chunks_exact(2 * channels));
        let (x_last, dy_last) = (x_pairs.remainder(), dy_pairs.remainder());
        for (x, dy) in x_pairs.zip(dy_pairs) {
            let ((x0, x1), (dy0, dy1)) = (x.split_at(channels), dy.split_at(channels));
            let (x1, dy1) = (&x1[..channels], &dy1[..channels]);
            for c in 0..channels {
                let (a, b) = (at(x0[c], dy0[c], c), at(x1[c], dy1[c], c));
                sum[c] += a.0 + b.0;
                product[c] += a.1 + b.1;
            }
        }
        for (x, dy) in x_last.chunks_exact(channels).zip(dy_last.chunks_exact(channels)) {
            for c in 0..channels {
                let a = at(x[c], dy[c], c);
                sum[c] += a.0;
                product[c] += a.1;
            }
        }
    }
}

simd_fn! {
    /// dx = scale · dz + slope · (x − mean) + offset.
    fn input_gradient_run<T: Element, F: Fn(f32) -> f32>(
        x: &[T], dy: &[T], dx: &mut [T], mean: &[f32], scale: &[f32], bias: &[f32], dact: &F,
        slope: &[f32], offset: &[f32],
    ) {
        let channels = mean.len();
        let (scale, bias) = (&scale[..channels], &bias[..channels]);
        let (slope, offset) = (&slope[..channels], &offset[..channels]);
        let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
        for (dx, (x, dy)) in dx.chunks_exact_mut(channels).zip(pixels) {
            for c in 0..channels {
                let centred = x[c].to_f32() - mean[c];
                let dz = dy[c].to_f32() * dact(centred * scale[c] + bias[c]);
                dx[c] = T::from_f32(scale[c] * dz + slope[c] * centred + offset[c]);
            }
        }
    }
}

/// Mean and sum of squared deviations of each group over a run's pixels.
fn group_moments<T: Element>(x: &[T], groups: Groups) -> Vec<[f64; 2]> {
    let (channels, width) = (groups.channels, groups.width());
    // The mean of the run's first pixel, group by group.
    let first = x[..channels].chunks_exact(width);
    let shift: Vec<f32> = first
        .map(|x| x.iter().map(|x| x.to_f32()).sum::<f32>() / width as f32)
        .flat_map(|mean| std::iter::repeat_n(mean, width))
        .collect();
    let (mut sum, mut square) = (vec![0.0; channels], vec![0.0; channels]);
    run_moments(isa(), x, &shift, &mut sum, &mut square);
    let count = (x.len() / groups.groups) as f64;
    let of_groups = sum.chunks_exact(width).zip(square.chunks_exact(width)).zip(shift.iter().step_by(width));
    of_groups
        .map(|((sum, square), &shift)| {
            let (sum, square) = (total(sum), total(square));
            [f64::from(shift) + sum / count, (square - sum * sum / count).max(0.0)]
        })
        .collect()
}

fn total(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x)).sum()
}

/// Mean and 1 / √(variance + eps) of each image's groups.
fn moments(x: &Tensor, groups: Groups, eps: f32) -> Vec<[f32; 2]> {
    let runs = with_element!(x.dtype(), T => {
        let x = x.elements::<T>();
        groups.map_runs(|_, range| (range.len() / groups.groups, group_moments(&x[range], groups)))
    });
    let count = (groups.pixels * groups.width()) as f64;
    let of_image = |runs: &[(usize, Vec<[f64; 2]>)]| {
        let mut out = Vec::with_capacity(groups.groups);
        for g in 0..groups.groups {
            let mean = runs.iter().map(|(n, run)| *n as f64 * run[g][0]).sum::<f64>() / count;
            let spread =
                |(n, run): &(usize, Vec<[f64; 2]>)| run[g][1] + *n as f64 * (run[g][0] - mean).powi(2);
            let variance = runs.iter().map(spread).sum::<f64>() / count;
            out.push([mean as f32, (1.0 / (variance + f64::from(eps)).sqrt()) as f32]);
        }
        out
    };
    runs.chunks(groups.runs().max(1)).flat_map(of_image).collect()
}

impl GroupNorm {
    /// `moments` are those of each image's groups; `weight` and `bias` have C elements.
    fn new(groups: Groups, moments: &[[f32; 2]], weight: Vec<f32>, bias: Vec<f32>, silu: bool) -> Self {
        assert_eq!((weight.len(), bias.len()), (groups.channels, groups.channels));
        let by_channel = moments.iter().flat_map(|m| std::iter::repeat_n(m, groups.width()));
        let scale = by_channel.clone().zip(weight.iter().cycle()).map(|(m, w)| m[1] * w).collect();
        let mean = by_channel.map(|m| m[0]).collect();
        let rstd = moments.iter().map(|m| m[1]).collect();
        GroupNorm { groups, rstd, mean, scale, weight, bias, silu }
    }

    /// An image's mean and scale, by channel.
    fn of_image(&self, image: usize) -> (&[f32], &[f32]) {
        let channels = self.groups.channels;
        let range = image * channels..(image + 1) * channels;
        (&self.mean[range.clone()], &self.scale[range])
    }

    /// The normalised x.
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut out = Buffer::uninit(x.numel() * x.dtype().size());
        with_element!(x.dtype(), T => {
            let x = x.elements::<T>();
            self.groups.for_runs(out.as_mut_slice::<T>(), |image, y, start| {
                let (mean, scale) = self.of_image(image);
                let x = &x[start..start + y.len()];
                match self.silu {
                    true => normalize_run(isa(), x, y, mean, scale, &self.bias, &math::silu),
                    false => normalize_run(isa(), x, y, mean, scale, &self.bias, &|z| z),
                }
            });
        });
        Tensor::new(out, x.shape(), x.dtype())
    }

    /// The gradients for that of the result.
    fn backward(&self, x: &Tensor, dy: &Tensor, with_dx: bool) -> (Option<Tensor>, [Tensor; 2]) {
        assert_eq!((x.shape(), x.dtype()), (dy.shape(), dy.dtype()));
        let channels = self.groups.channels;
        let sums = self.gradient_sums(x, dy);
        let (mut dweight, mut dbias) = (vec![0.0; channels], vec![0.0; channels]);
        for (image, (sum, product)) in sums.iter().enumerate() {
            for c in 0..channels {
                let rstd = self.rstd[image * self.groups.groups + c / self.groups.width()];
                dweight[c] += product[c] * f64::from(rstd);
                dbias[c] += sum[c];
            }
        }
        let dx = with_dx.then(|| self.input_gradient(x, dy, &sums));
        (dx, [&dweight, &dbias].map(|sums| from_slice(&to_f32(sums), &[channels])))
    }

    /// Σ dz and Σ dz (x − mean) over each image's pixels, by channel.
    fn gradient_sums(&self, x: &Tensor, dy: &Tensor) -> Vec<(Vec<f64>, Vec<f64>)> {
        let channels = self.groups.channels;
        let runs = with_element!(x.dtype(), T => {
            let (x, dy) = (x.elements::<T>(), dy.elements::<T>());
            self.groups.map_runs(|image, range| {
                let (mean, scale) = self.of_image(image);
                let (x, dy) = (&x[range.clone()], &dy[range]);
                let (mut a, mut b) = (vec![0.0; channels], vec![0.0; channels]);
                match self.silu {
                    true => gradient_sums_run(isa(), x, dy, mean, scale, &self.bias, &math::silu_grad, &mut a, &mut b),
                    false => gradient_sums_run(isa(), x, dy, mean, scale, &self.bias, &|_| 1.0, &mut a, &mut b),
                }
                (a, b)
            })
        });
        let of_image = |runs: &[(Vec<f32>, Vec<f32>)]| {
            let sum = sum_rows(runs.iter().map(|run| run.0.as_slice()), channels);
            (sum, sum_rows(runs.iter().map(|run| run.1.as_slice()), channels))
        };
        runs.chunks(self.groups.runs().max(1)).map(of_image).collect()
    }

    /// dx = rstd (w dz − mean(w dz) − x̂ mean(w dz x̂)), means over the group.
    fn input_gradient(&self, x: &Tensor, dy: &Tensor, sums: &[(Vec<f64>, Vec<f64>)]) -> Tensor {
        let Groups { channels, groups, pixels, .. } = self.groups;
        let width = self.groups.width();
        let (mut slope, mut offset) = (Vec::new(), Vec::new());
        for (i, &rstd) in self.rstd.iter().enumerate() {
            let (image, first) = (i / groups, i % groups * width);
            let rstd = f64::from(rstd);
            let mean = |sums: &[f64]| {
                let weighted = (first..first + width).map(|c| f64::from(self.weight[c]) * sums[c]);
                weighted.sum::<f64>() / (pixels * width) as f64
            };
            slope.resize(slope.len() + width, (-rstd.powi(3) * mean(&sums[image].1)) as f32);
            offset.resize(offset.len() + width, (-rstd * mean(&sums[image].0)) as f32);
        }
        let mut out = Buffer::uninit(x.numel() * x.dtype().size());
        with_element!(x.dtype(), T => {
            let (x, dy) = (x.elements::<T>(), dy.elements::<T>());
            self.groups.for_runs(out.as_mut_slice::<T>(), |image, dx, start| {
                let (mean, scale) = self.of_image(image);
                let (slope, offset) = (&slope[image * channels..], &offset[image * channels..]);
                let (x, dy) = (&x[start..start + dx.len()], &dy[start..start + dx.len()]);
                match self.silu {
                    true => input_gradient_run(isa(), x, dy, dx, mean, scale, &self.bias, &math::silu_grad, slope, offset),
                    false => input_gradient_run(isa(), x, dy, dx, mean, scale, &self.bias, &|_| 1.0, slope, offset),
                }
            });
        });
        Tensor::new(out, x.shape(), x.dtype())
    }
}
