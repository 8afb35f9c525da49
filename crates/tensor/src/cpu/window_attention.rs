//! Attention in windows (Liu et al., "Swin Transformer" and "Swin Transformer V2", 2021). A window is a task: the features of its
//! pixels are gathered from where they lie in the image, and its scores live in cache only.

use super::Buffer;
use super::attention::{exp_tile_row, max_tile_row, read_tile_row, scale_row, tiles};
use super::elementwise::with_element;
use super::gemm::{SharedOut, each_task, with_micro};
use super::isa::{Isa, isa, simd_fn};
use super::math::{Element, mul_add};
use super::micro::{self, Micro};
use super::operand::convert_slice;
use super::panels::fill;
use super::reduce::sum_of;
use super::transpose::{transpose, transpose_pairs};
use crate::backend::WindowArgs;
use crate::dtype::DType;
use crate::tensor::Tensor;

pub(super) fn forward(args: &WindowArgs, qkv: [&Tensor; 3]) -> Tensor {
    let q = qkv[0];
    let bf16 = q.dtype() == DType::BF16;
    let y = with_micro!(bf16, M => with_element!(q.dtype(), T => run::<M, T>(args, qkv)));
    Tensor::new(y, q.shape(), q.dtype())
}

fn run<M: Micro, T: Element>(args: &WindowArgs, qkv: [&Tensor; 3]) -> Buffer {
    let (q, heads) = (qkv[0], args.heads);
    let (pixels, d) = (q.dim(1) * q.dim(2), q.dim(3) / heads);
    let windows = pixels / args.window.pow(2);
    let [q_values, k, v] = qkv.map(Tensor::elements::<T>);
    let mut out = Buffer::uninit(q.numel() * size_of::<T>());
    let shared = SharedOut(out.as_mut_slice::<u8>().as_mut_ptr());
    each_task(q.dim(0) * windows, |task| {
        let pixels = Pixels::of([q.dim(1), q.dim(2)], task / windows * pixels, task % windows, args);
        let mut window = Window::<M>::new(&pixels, d, args);
        let mut row = vec![0.0; d];
        for head in 0..heads {
            let features = |x, i: usize| head_features::<T>(x, pixels.at[i] * heads + head, d);
            window.pack_keys(|i| features(k, i));
            window.score(head, |i| features(q_values, i));
            let sums = window.softmax();
            window.add_values(|i| features(v, i));
            for (i, sum) in sums.iter().enumerate() {
                window.read_row(i, &mut row);
                scale_row(isa(), &mut row, 1.0 / sum);
                // SAFETY: this task alone writes the pixels of this window.
                let out = unsafe { shared.slice::<T>((pixels.at[i] * heads + head) * d, d) };
                convert_slice(isa(), &row, out);
            }
        }
    });
    out
}

/// The features of one head of a pixel: both are counted in `index`.
fn head_features<T>(x: &[T], index: usize, d: usize) -> &[T] {
    &x[index * d..][..d]
}

/// The pixels of a window, row by row.
struct Pixels {
    /// Where each lies among the pixels of all images.
    at: Vec<usize>,
    /// Equal numbers for pixels between which no edge of the image lies.
    regions: Vec<u32>,
}

impl Pixels {
    fn of([height, width]: [usize; 2], first: usize, window: usize, args: &WindowArgs) -> Pixels {
        let side = args.window;
        let (top, left) = (window / (width / side) * side, window % (width / side) * side);
        let place = |i: usize| [top + i / side + args.shift, left + i % side + args.shift];
        let places = (0..side * side).map(place);
        let at = places.clone().map(|[y, x]| first + y % height * width + x % width).collect();
        let regions = places.map(|[y, x]| u32::from(y < height) * 2 + u32::from(x < width)).collect();
        Pixels { at, regions }
    }
}

/// One head of a window, on its way from scores to a result.
struct Window<'a, M: Micro> {
    args: &'a WindowArgs<'a>,
    regions: &'a [u32],
    d: usize,
    /// Features of queries or of keys, row-major, d (padded) to a row.
    rows: Buffer,
    /// Panels of keys, or of the features of values.
    panels: Buffer,
    /// Tiles for each panel of keys.
    scores: Buffer,
    /// Row-major, keys (padded) to a row.
    weights: Buffer,
    /// Tiles for each panel of features.
    out: Buffer,
    _kernel: std::marker::PhantomData<M>,
}

impl<'a, M: Micro> Window<'a, M> {
    fn new(pixels: &'a Pixels, d: usize, args: &'a WindowArgs<'a>) -> Self {
        let keys = pixels.at.len();
        let (queries, padded_keys) = (keys.next_multiple_of(M::MR), keys.next_multiple_of(M::NR));
        let (depth, columns) = (d.next_multiple_of(M::PAIR), d.next_multiple_of(M::NR));
        let panels = (padded_keys * depth).max(columns * keys.next_multiple_of(M::PAIR));
        let elements = |count: usize| Buffer::uninit(count * size_of::<M::E>());
        Window {
            args,
            regions: &pixels.regions,
            d,
            rows: elements(keys * depth),
            panels: elements(panels),
            scores: Buffer::uninit(queries * padded_keys * 4),
            weights: elements(keys * padded_keys),
            out: Buffer::uninit(queries * columns * 4),
            _kernel: std::marker::PhantomData,
        }
    }

    fn keys(&self) -> usize {
        self.regions.len()
    }

    /// Gathers rows of features, divided by their lengths where the attention asks for that.
    fn gather<'t, T: Element>(&mut self, row: impl Fn(usize) -> &'t [T]) {
        let (d, cosine) = (self.d, self.args.cosine);
        let rows = self.rows.as_mut_slice::<M::E>().chunks_exact_mut(d.next_multiple_of(M::PAIR));
        for (i, out) in rows.enumerate() {
            let (out, rest) = out.split_at_mut(d);
            if cosine {
                unit_row(isa(), row(i), out)
            } else {
                convert_slice(isa(), row(i), out)
            }
            rest.fill(M::E::from_f32(0.0));
        }
    }

    /// The keys as panels.
    fn pack_keys<'t, T: Element>(&mut self, key: impl Fn(usize) -> &'t [T]) {
        self.gather(key);
        let d = self.d.next_multiple_of(M::PAIR);
        let rows = self.rows.as_slice::<M::E>().chunks(M::NR * d);
        for (rows, panel) in rows.zip(self.panels.as_mut_slice::<M::E>().chunks_exact_mut(M::NR * d)) {
            let count = rows.len() / d;
            if count < M::NR {
                panel.fill(M::E::from_f32(0.0));
            }
            if M::PAIR == 1 {
                transpose(rows, d, [count, d], panel, M::NR);
            } else {
                let (rows, panel) = (bytemuck::cast_slice(rows), bytemuck::cast_slice_mut(panel));
                transpose_pairs(rows, d / 2, [count, d / 2], panel, M::NR);
            }
        }
    }

    /// The score of each query and each key.
    fn score<'t, T: Element>(&mut self, head: usize, query: impl Fn(usize) -> &'t [T]) {
        self.gather(query);
        let keys = self.keys();
        let pointers = row_pointers::<M>(self.rows.as_slice(), keys, self.d.next_multiple_of(M::PAIR));
        let scores = self.scores.as_mut_slice();
        tiles::<M>(self.d, &pointers, self.panels.as_slice(), keys.div_ceil(M::NR), scores, true);
        let (scale, stride) = (self.args.scale.f32s()[head], pointers.len() * M::NR);
        let bias = self.args.bias.f32s()[head * keys * keys..].chunks_exact(keys);
        for (r, (bias, region)) in bias.zip(self.regions).enumerate() {
            let row = &mut scores[r * M::NR..];
            add_bias(isa(), row, stride, M::NR, scale, bias, self.regions, *region, self.args.apart);
        }
    }

    /// Turns scores into weights, and gives the sum of each row of them.
    fn softmax(&mut self) -> Vec<f32> {
        let padded = self.keys().next_multiple_of(M::NR);
        let stride = self.keys().next_multiple_of(M::MR) * M::NR;
        let scores = self.scores.as_slice::<f32>();
        let rows = self.weights.as_mut_slice::<M::E>().chunks_exact_mut(padded).enumerate();
        let sum = |(r, weights)| {
            let row = &scores[r * M::NR..];
            let max = max_tile_row(isa(), row, stride, M::NR, padded);
            exp_tile_row(isa(), row, stride, M::NR, max, std::f32::consts::LOG2_E, weights)
        };
        rows.map(sum).collect()
    }

    /// The sums of values, times their weights.
    fn add_values<'t, T: Element>(&mut self, value: impl Fn(usize) -> &'t [T]) {
        let (keys, d) = (self.keys(), self.d);
        let per_panel = keys.next_multiple_of(M::PAIR) * M::NR;
        let panels = self.panels.as_mut_slice::<M::E>().chunks_exact_mut(per_panel);
        for (p, panel) in panels.take(d.div_ceil(M::NR)).enumerate() {
            let columns = p * M::NR..d.min((p + 1) * M::NR);
            fill::<M, T>(panel, keys, |key| Some(&value(key)[columns.clone()]));
        }
        let weights = self.weights.as_slice::<M::E>();
        let pointers = row_pointers::<M>(weights, keys, keys.next_multiple_of(M::NR));
        tiles::<M>(keys, &pointers, self.panels.as_slice(), d.div_ceil(M::NR), self.out.as_mut_slice(), true);
    }

    /// The sum of one query.
    fn read_row(&self, i: usize, row: &mut [f32]) {
        read_tile_row::<M>(self.out.as_slice(), self.keys().div_ceil(M::MR), i, row);
    }
}

/// Pointers to the rows of a row-major matrix, as many as fill whole tiles: those past the end point to the last row.
fn row_pointers<M: Micro>(x: &[M::E], rows: usize, width: usize) -> Vec<*const M::E> {
    (0..rows.next_multiple_of(M::MR)).map(|r| x[r.min(rows - 1) * width..][..width].as_ptr()).collect()
}

simd_fn! {
    /// y = x / max(‖x‖, 1e-12).
    fn unit_row<X: Element, Y: Element>(x: &[X], y: &mut [Y]) {
        let length = sum_of(x, |x| x * x).sqrt();
        let factor = 1.0 / if length > 1e-12 { length } else { 1e-12 };
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(x.to_f32() * factor);
        }
    }
}

simd_fn! {
    /// Finishes the scores of one query: q·k becomes scale q·k + bias, + `apart` for keys of another region. A row lies as that of
    /// [`max_tile_row`]: `nr` scores together, then a stride on. Scores of no key become the least number.
    fn add_bias[FMA](
        row: &mut [f32], stride: usize, nr: usize, scale: f32, bias: &[f32], regions: &[u32], region: u32, apart: f32,
    ) {
        for ((part, bias), regions) in row.chunks_mut(stride).zip(bias.chunks(nr)).zip(regions.chunks(nr)) {
            let (part, rest) = part[..nr].split_at_mut(bias.len());
            for ((score, bias), other) in part.iter_mut().zip(bias).zip(regions) {
                let apart = if *other == region { 0.0 } else { apart };
                *score = mul_add::<FMA>(*score, scale, *bias + apart);
            }
            rest.fill(f32::MIN);
        }
    }
}
