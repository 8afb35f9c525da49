//! 3 × 3 convolutions with fewer multiplications: F(m × m, 3 × 3) of Lavin & Gray, "Fast Algorithms for Convolutional
//! Neural Networks", 2015. Tiles of 4 × 4 pixels in f32, of 2 × 2 in bf16 where the CPU multiplies bf16.
//!
//! Each window of the image (of 4 × 4 pixels: 6 × 6) and each kernel are transformed to as many frequencies; a frequency is
//! a matrix product over the channels; the results give a tile of pixels. The kernels are transformed panel by panel as the
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
use super::transforms::{F2, F4, Frequency, Tile, WIDEST};
use crate::backend::{ConvShape, Epilogue};
use crate::dtype::DType;
use crate::tensor::Tensor;

#[cfg(test)]
mod tests;

/// Tiles that are treated at once, or a multiple: so few that their frequencies stay in the cache.
const STRIP: usize = 512;
/// Channels that a transform treats at once. The compiler does not vectorise the rounding of as few as 16.
const LANES: usize = 32;
/// The most pixels of a window, and frequencies of a tile.
const MOST: usize = WIDEST * WIDEST;

type Lane = [f32; LANES];

/// What is computed of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Whether this CPU multiplies numbers of `x` with those of a weight that is stored as `store` in bf16.
fn in_bf16(x: &Tensor, store: DType) -> bool {
    isa().has_bf16() && x.dtype() == DType::BF16 && store == DType::BF16
}

/// Whether a convolution is computed by this algorithm. Its weight has `inp` and `out` channels and is stored as `store`. For the
/// gradient of the input, `x` is dy.
pub(crate) fn pays(x: &Tensor, channels: [usize; 2], store: DType, s: ConvShape) -> bool {
    let same = s.kernel == [3, 3] && s.stride == 1 && s.pad == [1, 1] && s.input == s.output;
    let large = if in_bf16(x, store) { large::<F2> } else { large::<F4> };
    same && x.numel() > 0 && large(s.input, channels)
}

/// Whether an image of a size, with these channels in and out, has enough tiles and channels.
fn large<F: Tile>([height, width]: [usize; 2], [inp, out]: [usize; 2]) -> bool {
    Grid { height, width, side: F::SIDE }.per_image() >= F::MIN_TILES && inp.min(out) >= F::MIN_CHANNELS
}

/// x (B, H, W, I) → (B, H, W, O), or back: stride 1, padding 1.
pub(crate) fn conv3x3(x: &Tensor, w: &Packed, direction: Direction, epilogue: &Epilogue) -> Buffer {
    if in_bf16(x, w.store) {
        return tiled::<F2>(x, w, direction, epilogue);
    }
    tiled::<F4>(x, w, direction, epilogue)
}

fn tiled<F: Tile>(x: &Tensor, w: &Packed, direction: Direction, epilogue: &Epilogue) -> Buffer {
    let [inp, out_channels] = direction.channels(w);
    let grid = Grid { height: x.dim(1), width: x.dim(2), side: F::SIDE };
    let tiles = x.dim(0) * grid.per_image();
    let mut out = Buffer::uninit(x.numel() / inp * out_channels * x.dtype().size());
    let shared = SharedOut(out.as_mut_slice::<u8>().as_mut_ptr());
    let bias = epilogue.bias.map(to_vec);
    let shift = epilogue.shift.map(to_vec);
    let strip = strip::<F>([inp, out_channels]);
    for first in (0..tiles).step_by(strip) {
        let count = strip.min(tiles - first);
        with_element!(x.dtype(), T => {
            let frequencies = image_frequencies::<T, F>(&grid, x.elements(), inp, first, count);
            let products: Vec<Buffer> = frequencies
                .par_iter()
                .enumerate()
                .map(|(f, frequencies)| product(frequencies, w, direction, Frequency::of::<F>(f)))
                .collect();
            let finish = Finish::<T> {
                grid: &grid,
                products: &products,
                channels: out_channels,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: epilogue.residual.map(Tensor::elements),
            };
            finish.run::<F>(first, count, shared);
        });
    }
    out
}

/// How many tiles are treated at once.
fn strip<F: Tile>([inp, out]: [usize; 2]) -> usize {
    let bytes = STRIP * F::FREQUENCIES * (inp * size_of::<F::E>() + out * size_of::<f32>());
    (F::STRIP_BYTES / bytes).max(1) * STRIP
}

/// One frequency's (tiles, O) = (tiles, I) · transformed kernels.
fn product(frequencies: &Tensor, w: &Packed, direction: Direction, frequency: Frequency) -> Buffer {
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

/// The division of an image into tiles. The last tiles reach over the edge.
struct Grid {
    height: usize,
    width: usize,
    /// Pixels along a side of a tile.
    side: usize,
}

impl Grid {
    fn per_image(&self) -> usize {
        self.height.div_ceil(self.side) * self.width.div_ceil(self.side)
    }

    /// Image, and the upper left pixel of its tile.
    fn tile(&self, index: usize) -> [usize; 3] {
        let columns = self.width.div_ceil(self.side);
        let tile = index % self.per_image();
        [index / self.per_image(), tile / columns * self.side, tile % columns * self.side]
    }
}

/// The frequencies of `count` tiles, each (count, channels).
fn image_frequencies<T: Element, F: Tile>(
    grid: &Grid,
    x: &[T],
    channels: usize,
    first: usize,
    count: usize,
) -> Vec<Tensor> {
    let size = count * channels * size_of::<F::E>();
    let mut out: Vec<_> = (0..F::FREQUENCIES).map(|_| Buffer::uninit(size)).collect();
    let shared: Vec<_> = out.iter_mut().map(|b| SharedOut(b.as_mut_slice::<u8>().as_mut_ptr())).collect();
    (0..count).into_par_iter().for_each(|i| {
        let [image, y, x0] = grid.tile(first + i);
        // Where each of the window's pixels starts; None outside the image.
        let pixels: [Option<usize>; MOST] = std::array::from_fn(|p| {
            let y = (y + p / F::WINDOW).checked_sub(1).filter(|y| *y < grid.height)?;
            let x = (x0 + p % F::WINDOW).checked_sub(1).filter(|x| *x < grid.width)?;
            Some(((image * grid.height + y) * grid.width + x) * channels)
        });
        transform_window::<T, F>(isa(), x, &pixels, channels, i, &shared);
    });
    out.into_iter().map(|buffer| Tensor::new(buffer, &[count, channels], F::E::DTYPE)).collect()
}

/// Copies up to [`LANES`] values. The usual case, exactly so many, is a loop of a fixed length.
#[inline(always)]
fn copy_lanes<X: Element, Y: Element>(from: &[X], to: &mut [Y]) {
    let copy = |(to, from): (&mut Y, &X)| *to = Y::from_f32(from.to_f32());
    match to.len() {
        LANES => to[..LANES].iter_mut().zip(&from[..LANES]).for_each(copy),
        _ => to.iter_mut().zip(from).for_each(copy),
    }
}

simd_fn! {
    /// Bᵀ d B of the pixels of a window: row `row` of each frequency.
    fn transform_window<T: Element, F: Tile>(
        x: &[T],
        pixels: &[Option<usize>; MOST],
        channels: usize,
        row: usize,
        out: &[SharedOut],
    ) {
        let mut window = [[0.0; LANES]; MOST];
        for c in (0..channels).step_by(LANES) {
            let lanes = LANES.min(channels - c);
            for (lane, start) in window.iter_mut().zip(pixels).take(F::FREQUENCIES) {
                match start {
                    Some(start) => copy_lanes(&x[start + c..start + c + lanes], &mut lane[..lanes]),
                    None => *lane = [0.0; LANES],
                }
            }
            for i in 0..F::WINDOW {
                transform_line::<F>(&mut window, i * F::WINDOW, 1);
            }
            for i in 0..F::WINDOW {
                transform_line::<F>(&mut window, i, F::WINDOW);
            }
            for (frequency, out) in window.iter().zip(out) {
                // SAFETY: the task of this tile alone writes the tile's row.
                let out = unsafe { out.slice::<F::E>(row * channels + c, lanes) };
                copy_lanes(&frequency[..lanes], out);
            }
        }
    }
}

/// Bᵀ d for the values of a row or column, `stride` apart.
#[inline(always)]
fn transform_line<F: Tile>(d: &mut [Lane; MOST], at: usize, stride: usize) {
    let line: [Lane; WIDEST] =
        std::array::from_fn(|i| if i < F::WINDOW { d[at + i * stride] } else { [0.0; LANES] });
    // Beside `line`: a loop that checks places in `d` is not vectorised.
    let mut out = [[0.0; LANES]; WIDEST];
    for lane in 0..LANES {
        let values = F::frequencies(std::array::from_fn(|i| line[i][lane]));
        (0..WIDEST).for_each(|i| out[i][lane] = values[i]);
    }
    for (i, out) in out.into_iter().enumerate().take(F::WINDOW) {
        d[at + i * stride] = out;
    }
}

/// From the products to pixels.
struct Finish<'a, T> {
    grid: &'a Grid,
    /// Of each frequency: (tiles, channels).
    products: &'a [Buffer],
    channels: usize,
    bias: Option<&'a [f32]>,
    /// (images, channels)
    shift: Option<&'a [f32]>,
    residual: Option<&'a [T]>,
}

impl<T: Element> Finish<'_, T> {
    fn run<F: Tile>(&self, first: usize, count: usize, out: SharedOut) {
        let Grid { height, width, .. } = *self.grid;
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
                inverse_tile::<F>(isa(), self.products, i * self.channels + c, lanes, &added, &mut pixels);
                for (p, pixel) in pixels.iter().enumerate().take(F::SIDE * F::SIDE) {
                    let (y, x) = (y + p / F::SIDE, x + p % F::SIDE);
                    if y >= height || x >= width {
                        continue;
                    }
                    let at = ((image * height + y) * width + x) * self.channels + c;
                    // SAFETY: this task alone writes this tile's pixels.
                    let out = unsafe { out.slice::<T>(at, lanes) };
                    let residual = self.residual.map(|r| &r[at..at + lanes]);
                    store_lanes(isa(), &pixel[..lanes], residual, out);
                }
            }
        });
    }
}

simd_fn! {
    /// Aᵀ m A + added: a tile's pixels of up to [`LANES`] channels.
    fn inverse_tile<F: Tile>(products: &[Buffer], at: usize, lanes: usize, added: &Lane, pixels: &mut [Lane; 16]) {
        let mut m = [[0.0; LANES]; MOST];
        for (lane, product) in m.iter_mut().zip(products) {
            copy_lanes(&product.as_slice::<f32>()[at..at + lanes], &mut lane[..lanes]);
        }
        let line = |m: &[Lane], at: usize, stride: usize, lane: usize| {
            F::pixels(std::array::from_fn(|i| if i < F::WINDOW { m[at + i * stride][lane] } else { 0.0 }))
        };
        let mut rows = [[0.0; LANES]; WIDEST * 4]; // WINDOW × SIDE
        for row in 0..F::WINDOW {
            #[allow(clippy::needless_range_loop)] // the lane is the innermost index, of the input too
            for lane in 0..LANES {
                let out = line(&m, row * F::WINDOW, 1, lane);
                (0..F::SIDE).for_each(|i| rows[row * F::SIDE + i][lane] = out[i]);
            }
        }
        for column in 0..F::SIDE {
            for lane in 0..LANES {
                let out = line(&rows, column, F::SIDE, lane);
                (0..F::SIDE).for_each(|i| pixels[i * F::SIDE + column][lane] = out[i] + added[lane]);
            }
        }
    }
}

simd_fn! {
    /// Adds the residual, rounds and stores up to [`LANES`] values. The usual case, exactly so many, is a loop of a fixed length.
    fn store_lanes<T: Element>(values: &[f32], residual: Option<&[T]>, out: &mut [T]) {
        let add = |((out, value), residual): ((&mut T, &f32), &T)| *out = T::from_f32(value + residual.to_f32());
        match (residual, out.len()) {
            (None, _) => copy_lanes(values, out),
            (Some(r), LANES) => {
                out[..LANES].iter_mut().zip(&values[..LANES]).zip(&r[..LANES]).for_each(add);
            }
            (Some(r), _) => out.iter_mut().zip(values).zip(r).for_each(add),
        }
    }
}
