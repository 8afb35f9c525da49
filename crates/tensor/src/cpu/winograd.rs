//! 3 × 3 convolutions with a quarter of the multiplications: F(4 × 4, 3 × 3) of Lavin & Gray, "Fast Algorithms
//! for Convolutional Neural Networks", 2015.
//!
//! Each 6 × 6 window of the image and each kernel are transformed to 36 frequencies; a frequency is a matrix
//! product over the channels; the 36 results give 4 × 4 pixels. The kernels are transformed panel by panel as the
//! products need them, so that weights take no more memory than elsewhere.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::{to_vec, with_element};
use super::gemm::{Gemm, SharedOut, gemm};
use super::isa::{isa, simd_fn};
use super::math::Element;
use super::operand::Rows;
use super::pack::Packed;
use super::panels::Panels;
use crate::backend::{ConvShape, Epilogue};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Frequencies of a tile.
pub(super) const FREQUENCIES: usize = 36;
/// The least number of tiles of an image with which the algorithm saves more time than the kernels' transform costs. Fewer were not
/// timed.
const MIN_TILES: usize = 16;
/// The least number of channels with which the algorithm saves more time than the transforms cost.
const MIN_CHANNELS: usize = 32;
/// Tiles that a task treats at once: so few that their frequencies stay in the cache.
const STRIP: usize = 512;
/// Channels that a transform treats at once.
const LANES: usize = 16;

type Lane = [f32; LANES];

/// What is computed of a convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Inputs to outputs.
    Forward,
    /// The gradient of outputs to that of inputs: the kernels flipped in both directions, inputs and outputs exchanged.
    Backward,
}

impl Direction {
    /// Channels that are read, and that are written.
    fn channels(self, w: &Packed) -> [usize; 2] {
        match self {
            Direction::Forward => [w.inp, w.out],
            Direction::Backward => [w.out, w.inp],
        }
    }
}

/// Whether a convolution is computed by this algorithm. Its weight has `inp` and `out` channels and is stored as `store`. For the
/// gradient of the input, `x` is dy.
pub(crate) fn pays(x: &Tensor, [inp, out]: [usize; 2], store: DType, s: ConvShape) -> bool {
    let same = s.kernel == [3, 3] && s.stride == 1 && s.pad == [1, 1] && s.input == s.output;
    let empty = x.numel() == 0 || inp == 0 || out == 0;
    let native_bf16 = isa().has_bf16() && x.dtype() == DType::BF16 && store == DType::BF16;
    let [height, width] = s.input;
    let large = Grid { height, width }.per_image() >= MIN_TILES && inp.min(out) >= MIN_CHANNELS;
    same && large && !empty && !native_bf16
}

/// x (B, H, W, I) → (B, H, W, O), or back: stride 1, padding 1.
pub(crate) fn conv3x3(x: &Tensor, w: &Packed, direction: Direction, epilogue: &Epilogue) -> Buffer {
    let [inp, out_channels] = direction.channels(w);
    let grid = Grid { height: x.dim(1), width: x.dim(2) };
    let tiles = x.dim(0) * grid.per_image();
    let mut out = Buffer::uninit(x.numel() / inp * out_channels * x.dtype().size());
    let shared = SharedOut(out.as_mut_slice::<u8>().as_mut_ptr());
    let bias = epilogue.bias.map(to_vec);
    let shift = epilogue.shift.map(to_vec);
    for first in (0..tiles).step_by(STRIP) {
        let count = STRIP.min(tiles - first);
        with_element!(x.dtype(), T => {
            let frequencies = image_frequencies::<T>(&grid, x.elements(), inp, first, count);
            let products: Vec<Buffer> = (0..FREQUENCIES)
                .into_par_iter()
                .map(|f| product(&frequencies[f], w, direction, f))
                .collect();
            let finish = Finish::<T> {
                grid: &grid,
                products: &products,
                channels: out_channels,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: epilogue.residual.map(Tensor::elements),
            };
            finish.run(first, count, shared);
        });
    }
    out
}

/// One frequency's (tiles, O) = (tiles, I) · transformed kernels.
fn product(frequencies: &Tensor, w: &Packed, direction: Direction, frequency: usize) -> Buffer {
    let [k, n] = direction.channels(w);
    gemm(&Gemm {
        m: frequencies.dim(0),
        n,
        k,
        taps: 1,
        a: Rows::Matrix(frequencies),
        b: match direction {
            Direction::Forward => Panels::Winograd(w, frequency),
            Direction::Backward => Panels::WinogradTransposed(w, frequency),
        },
        epilogue: Epilogue::NONE,
        dtype: DType::F32,
    })
}

/// The division of an image into tiles of 4 × 4 pixels. The last tiles reach over the edge.
struct Grid {
    height: usize,
    width: usize,
}

impl Grid {
    fn per_image(&self) -> usize {
        self.height.div_ceil(4) * self.width.div_ceil(4)
    }

    /// Image, and the upper left pixel of its tile.
    fn tile(&self, index: usize) -> [usize; 3] {
        let columns = self.width.div_ceil(4);
        let tile = index % self.per_image();
        [index / self.per_image(), tile / columns * 4, tile % columns * 4]
    }
}

/// The 36 frequencies of `count` tiles, each (count, channels).
fn image_frequencies<T: Element>(
    grid: &Grid,
    x: &[T],
    channels: usize,
    first: usize,
    count: usize,
) -> Vec<Tensor> {
    let mut out: Vec<_> = (0..FREQUENCIES).map(|_| Buffer::uninit(count * channels * 4)).collect();
    let shared: Vec<_> = out.iter_mut().map(|b| SharedOut(b.as_mut_slice::<u8>().as_mut_ptr())).collect();
    (0..count).into_par_iter().for_each(|i| {
        let [image, y, x0] = grid.tile(first + i);
        // Where each of the window's 36 pixels starts; None outside the image.
        let pixels: [Option<usize>; 36] = std::array::from_fn(|p| {
            let y = (y + p / 6).checked_sub(1).filter(|y| *y < grid.height)?;
            let x = (x0 + p % 6).checked_sub(1).filter(|x| *x < grid.width)?;
            Some(((image * grid.height + y) * grid.width + x) * channels)
        });
        for c in (0..channels).step_by(LANES) {
            let lanes = LANES.min(channels - c);
            let mut window = [[0.0; LANES]; 36];
            transform_window(isa(), x, &pixels, c, lanes, &mut window);
            for (frequency, out) in window.iter().zip(&shared) {
                // SAFETY: this task alone writes this tile's row.
                copy_lanes(unsafe { out.slice::<f32>(i * channels + c, lanes) }, &frequency[..lanes]);
            }
        }
    });
    out.into_iter().map(|buffer| Tensor::new(buffer, &[count, channels], DType::F32)).collect()
}

/// Copies up to [`LANES`] values. The usual case, exactly so many, needs no call.
#[inline(always)]
fn copy_lanes(to: &mut [f32], from: &[f32]) {
    match to.len() {
        LANES => to[..LANES].copy_from_slice(&from[..LANES]),
        _ => to.copy_from_slice(from),
    }
}

simd_fn! {
    /// Reads a window of 6 × 6 pixels and gives Bᵀ d B.
    fn transform_window<T: Element>(
        x: &[T],
        pixels: &[Option<usize>; 36],
        c: usize,
        lanes: usize,
        window: &mut [Lane; 36],
    ) {
        for (lane, start) in window.iter_mut().zip(pixels) {
            if let Some(start) = start {
                let channels = &x[start + c..start + c + lanes];
                lane.iter_mut().zip(channels).for_each(|(lane, x)| *lane = x.to_f32());
            }
        }
        for row in 0..6 {
            transform_six(window, row * 6, 1);
        }
        for column in 0..6 {
            transform_six(window, column, 6);
        }
    }
}

/// Bᵀ d for six values, `stride` apart.
#[inline(always)]
fn transform_six(d: &mut [Lane; 36], at: usize, stride: usize) {
    let six: [Lane; 6] = std::array::from_fn(|i| d[at + i * stride]);
    for lane in 0..LANES {
        let [a, b, c, e, f, g] = six.map(|values| values[lane]);
        let out = [
            4.0 * a - 5.0 * c + f,
            (f - 4.0 * c) + (e - 4.0 * b),
            (f - 4.0 * c) - (e - 4.0 * b),
            (f - c) + 2.0 * (e - b),
            (f - c) - 2.0 * (e - b),
            4.0 * b - 5.0 * e + g,
        ];
        for (i, out) in out.into_iter().enumerate() {
            d[at + i * stride][lane] = out;
        }
    }
}

/// From the 36 products to pixels.
struct Finish<'a, T> {
    grid: &'a Grid,
    products: &'a [Buffer],
    channels: usize,
    bias: Option<&'a [f32]>,
    /// (images, channels)
    shift: Option<&'a [f32]>,
    residual: Option<&'a [T]>,
}

impl<T: Element> Finish<'_, T> {
    fn run(&self, first: usize, count: usize, out: SharedOut) {
        let Grid { height, width } = *self.grid;
        (0..count).into_par_iter().for_each(|i| {
            let [image, y, x] = self.grid.tile(first + i);
            for c in (0..self.channels).step_by(LANES) {
                let lanes = LANES.min(self.channels - c);
                let mut added = [0.0; LANES];
                let shift = self.shift.map(|s| &s[image * self.channels..]);
                for values in [self.bias, shift].into_iter().flatten() {
                    added.iter_mut().zip(&values[c..c + lanes]).for_each(|(sum, value)| *sum += value);
                }
                let mut pixels = [[0.0; LANES]; 16];
                inverse_tile(isa(), self.products, i * self.channels + c, lanes, &added, &mut pixels);
                for (p, pixel) in pixels.iter().enumerate() {
                    let (y, x) = (y + p / 4, x + p % 4);
                    if y >= height || x >= width {
                        continue;
                    }
                    let at = ((image * height + y) * width + x) * self.channels + c;
                    // SAFETY: this task alone writes this tile's pixels.
                    let out = unsafe { out.slice::<T>(at, lanes) };
                    let residual = self.residual.map(|r| &r[at..at + lanes]);
                    super::gemm::store_row(isa(), &pixel[..lanes], residual, out);
                }
            }
        });
    }
}

simd_fn! {
    /// Aᵀ m A + added: 4 × 4 pixels of up to 16 channels.
    fn inverse_tile(products: &[Buffer], at: usize, lanes: usize, added: &Lane, pixels: &mut [Lane; 16]) {
        let mut m = [[0.0; LANES]; 36];
        for (lane, product) in m.iter_mut().zip(products) {
            copy_lanes(&mut lane[..lanes], &product.as_slice::<f32>()[at..at + lanes]);
        }
        let mut rows = [[0.0; LANES]; 24]; // 6 × 4
        for row in 0..6 {
            for lane in 0..LANES {
                let four = inverse_six(std::array::from_fn(|i| m[row * 6 + i][lane]));
                (0..4).for_each(|i| rows[row * 4 + i][lane] = four[i]);
            }
        }
        for column in 0..4 {
            for lane in 0..LANES {
                let four = inverse_six(std::array::from_fn(|i| rows[i * 4 + column][lane]));
                (0..4).for_each(|i| pixels[i * 4 + column][lane] = four[i] + added[lane]);
            }
        }
    }
}

/// Aᵀ m for six values.
#[inline(always)]
fn inverse_six(m: [f32; 6]) -> [f32; 4] {
    let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
    let (far_sum, far_difference) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + sum + far_sum,
        difference + 2.0 * far_difference,
        sum + 4.0 * far_sum,
        difference + 8.0 * far_difference + m[5],
    ]
}
