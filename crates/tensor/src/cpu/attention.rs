//! Flash attention: the scores of a block of queries against a block of keys live in cache only, the
//! softmax is kept up to date block by block (Dao et al., "FlashAttention", 2022).
//!
//! Keys and values are first packed into the tile kernels' panels, once for each head.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::with_element;
use super::gemm::{SharedOut, each_task, with_micro};
use super::isa::{Isa, isa, simd_fn};
use super::layout::clear_rows;
use super::math::{self, Element};
use super::micro::{self, Micro};
use super::operand::convert_slice;
use super::panels::fill;
use super::transpose::{transpose, transpose_pairs};
use crate::backend::{HIDDEN, HeadShape, Mask};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Queries of a task: a multiple of every kernel's MR.
pub(super) const QUERIES: usize = 48;
/// Keys of a block: a multiple of every kernel's NR.
pub(super) const KEYS: usize = 256;

/// Attention's result, and the logarithm of each softmax's denominator, (batch · heads, queries), for the way back.
pub(super) fn forward(s: HeadShape, [q, k, v]: [&Tensor; 3], mask: Mask) -> (Tensor, Tensor) {
    let visible = Visible::of(mask);
    let bf16 = q.dtype() == DType::BF16;
    let (y, lse) =
        with_micro!(bf16, M => with_element!(q.dtype(), T => run::<M, T>(s, q, k, v, visible.mask())));
    let lse = Tensor::new(lse, &[s.batch * s.heads, s.queries], DType::F32);
    (visible.clear(&Tensor::new(y, q.shape(), q.dtype())), lse)
}

/// A mask under which each query sees a key, and the queries that see none under the given mask. The results of these queries are set
/// to zero.
pub(super) struct Visible<'a> {
    mask: Mask<'a>,
    /// Replaces the given mask.
    bias: Option<Tensor>,
    blind: Vec<usize>,
}

impl<'a> Visible<'a> {
    pub(super) fn of(mask: Mask<'a>) -> Self {
        let Mask::Bias(bias) = mask else { return Visible { mask, bias: None, blind: Vec::new() } };
        let rows = bias.f32s().chunks_exact(bias.last_dim()).enumerate();
        let blind: Vec<usize> =
            rows.filter(|(_, row)| row.iter().all(|bias| *bias <= HIDDEN)).map(|(query, _)| query).collect();
        let matrix = bias.viewed(&[1, bias.dim(0), bias.dim(1)]);
        let bias = (!blind.is_empty()).then(|| clear_rows(&matrix, &blind).viewed(bias.shape()));
        Visible { mask, bias, blind }
    }

    pub(super) fn mask(&self) -> Mask<'_> {
        self.bias.as_ref().map_or(self.mask, Mask::Bias)
    }

    /// x (B, T, C) with zeros for the queries that see nothing.
    pub(super) fn clear(&self, x: &Tensor) -> Tensor {
        if self.blind.is_empty() { x.detach() } else { clear_rows(x, &self.blind) }
    }
}

/// One matrix for each head, in panels.
pub(super) struct HeadPanels {
    data: Buffer,
    per_head: usize,
}

impl HeadPanels {
    /// Packs x (batch, rows, heads · d) as B (d, rows): panels of NR rows of x, as scores need them.
    pub(super) fn of_rows<M: Micro, T: Element>(s: &HeadShape, x: &[T], rows: usize) -> HeadPanels {
        let d = s.d.next_multiple_of(M::PAIR);
        Self::build::<M>(s, rows.div_ceil(M::NR), d * M::NR, |image, head, p, panel| {
            let first = p * M::NR;
            let count = M::NR.min(rows - first);
            if count < M::NR || d > s.d {
                panel.fill(M::E::from_f32(0.0));
            }
            let x = &x[s.at(image * rows + first, head)..];
            if M::PAIR == 1 {
                transpose(x, s.heads * s.d, [count, s.d], panel, M::NR);
            } else {
                let (x, panel) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(panel));
                transpose_pairs(x, s.heads * s.d / 2, [count, s.d / 2], panel, M::NR);
            }
        })
    }

    /// Packs x (batch, rows, heads · d) as B (rows, d): panels of NR features, as weighted sums of rows need them.
    pub(super) fn of_features<M: Micro, T: Element>(s: &HeadShape, x: &[T], rows: usize) -> HeadPanels {
        let padded = rows.next_multiple_of(M::PAIR);
        Self::build::<M>(s, s.d.div_ceil(M::NR), padded * M::NR, |image, head, p, panel| {
            let first = p * M::NR;
            let columns = M::NR.min(s.d - first);
            fill::<M, T>(panel, rows, |row| Some(&x[s.at(image * rows + row, head) + first..][..columns]));
        })
    }

    fn build<M: Micro>(
        s: &HeadShape,
        panels: usize,
        len: usize,
        fill: impl Fn(usize, usize, usize, &mut [M::E]) + Sync,
    ) -> HeadPanels {
        let per_head = panels * len;
        let mut data = Buffer::uninit(s.batch * s.heads * per_head * size_of::<M::E>());
        data.as_mut_slice::<M::E>().par_chunks_mut(len).enumerate().for_each(|(i, panel)| {
            let (head, p) = (i / panels, i % panels);
            fill(head / s.heads, head % s.heads, p, panel);
        });
        HeadPanels { data, per_head }
    }

    /// The panels of one head of one image.
    pub(super) fn head<E: Element>(&self, index: usize) -> &[E] {
        &self.data.as_slice::<E>()[index * self.per_head..][..self.per_head]
    }
}

/// Pointers to the features of one head in consecutive rows. Those past the end point to the last row.
pub(super) fn head_rows<M: Micro, T: Element>(
    s: &HeadShape,
    x: &[T],
    rows: std::ops::Range<usize>,
    head: usize,
    scratch: &mut [M::E],
) -> Vec<*const M::E> {
    let d = s.d.next_multiple_of(M::PAIR);
    let padded = rows.len().next_multiple_of(M::MR);
    let pointer = |i: usize| {
        let features = &x[s.at((rows.start + i).min(rows.end - 1), head)..][..s.d];
        if T::DTYPE == M::E::DTYPE && d == s.d {
            return features.as_ptr().cast();
        }
        let row = &mut scratch[i * d..(i + 1) * d];
        convert_slice(isa(), features, &mut row[..s.d]);
        row[s.d..].fill(M::E::from_f32(0.0));
        row.as_ptr()
    };
    let mut pointer = pointer;
    (0..padded).map(&mut pointer).collect()
}

fn run<M: Micro, T: Element>(
    s: HeadShape,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Mask,
) -> (Buffer, Buffer) {
    let keys = HeadPanels::of_rows::<M, T>(&s, k.elements(), s.keys);
    let values = HeadPanels::of_features::<M, T>(&s, v.elements(), s.keys);
    let mut out = Buffer::uninit(q.numel() * size_of::<T>());
    let mut lse = Buffer::uninit(s.batch * s.heads * s.queries * 4);
    let shared_out = SharedOut(out.as_mut_slice::<u8>().as_mut_ptr());
    let shared_lse = SharedOut(lse.as_mut_slice::<u8>().as_mut_ptr());
    let blocks = s.queries.div_ceil(QUERIES);
    each_task(s.batch * s.heads * blocks, |task| {
        let (head, q0) = (task / blocks, task % blocks * QUERIES);
        let rows = QUERIES.min(s.queries - q0);
        let mut block = QueryBlock::<M>::new(s, q0, rows);
        block.attend::<T>(q.elements(), keys.head(head), values.head(head), head, mask);
        let mut scratch = vec![0.0; s.d];
        // SAFETY: this task alone writes these queries of this head.
        let lse = unsafe { shared_lse.slice::<f32>(head * s.queries + q0, rows) };
        for (r, lse) in lse.iter_mut().enumerate() {
            *lse = block.max[r] * s.scale() + block.sum[r].ln();
            let at = s.at(head / s.heads * s.queries + q0 + r, head % s.heads);
            // SAFETY: as above.
            block.store_row(r, &mut scratch, unsafe { shared_out.slice::<T>(at, s.d) });
        }
    });
    (out, lse)
}

/// A block of queries of one head, on its way past the keys.
struct QueryBlock<M: Micro> {
    s: HeadShape,
    q0: usize,
    rows: usize,
    /// Largest unscaled score so far, and the sum of exponentials relative to it.
    max: [f32; QUERIES],
    sum: [f32; QUERIES],
    /// Weighted sums of values: tiles, for each panel of features.
    out: Buffer,
    _kernel: std::marker::PhantomData<M>,
}

impl<M: Micro> QueryBlock<M> {
    fn new(s: HeadShape, q0: usize, rows: usize) -> Self {
        let out = Buffer::uninit(s.d.div_ceil(M::NR) * M::NR * rows.next_multiple_of(M::MR) * 4);
        let (max, sum) = ([f32::MIN; QUERIES], [0.0; QUERIES]);
        Self { s, q0, rows, max, sum, out, _kernel: std::marker::PhantomData }
    }

    fn attend<T: Element>(&mut self, q: &[T], keys: &[M::E], values: &[M::E], head: usize, mask: Mask) {
        let s = self.s;
        let padded = self.rows.next_multiple_of(M::MR);
        let mut q_scratch = Buffer::uninit(padded * s.d.next_multiple_of(M::PAIR) * size_of::<M::E>());
        let first = head / s.heads * s.queries + self.q0;
        let q_rows =
            head_rows::<M, T>(&s, q, first..first + self.rows, head % s.heads, q_scratch.as_mut_slice());
        let mut scores = Buffer::uninit(padded * KEYS * 4);
        let mut weights = Buffer::uninit(padded * KEYS * size_of::<M::E>());
        let end = if matches!(mask, Mask::Causal) { s.keys.min(self.q0 + self.rows) } else { s.keys };
        for k0 in (0..end).step_by(KEYS) {
            let len = KEYS.min(end - k0);
            let panels = &keys[k0 * s.d.next_multiple_of(M::PAIR)..];
            tiles::<M>(s.d, &q_rows, panels, len.div_ceil(M::NR), scores.as_mut_slice(), true);
            self.softmax(scores.as_mut_slice(), weights.as_mut_slice(), k0, len, mask);
            self.add_values(weights.as_slice(), values, k0, len);
        }
    }

    /// Turns a block of scores (of whole panels of keys) into weights (row-major, KEYS to a row), and rescales the
    /// sums so far.
    fn softmax(&mut self, scores: &mut [f32], weights: &mut [M::E], k0: usize, len: usize, mask: Mask) {
        let tiles = self.rows.div_ceil(M::MR);
        let stride = tiles * M::MR * M::NR;
        let scale = self.s.scale() * std::f32::consts::LOG2_E;
        let whole = len.next_multiple_of(M::NR);
        for r in 0..self.rows {
            let row = &mut scores[r * M::NR..];
            if len < whole {
                row[whole / M::NR * stride - stride..][..M::NR][len % M::NR..].fill(f32::MIN); // no such keys
            }
            if !matches!(mask, Mask::None) {
                self.mask_tile_row(row, stride, self.q0 + r, k0, len, mask);
            }
            let max = max_tile_row(isa(), row, stride, M::NR, whole).max(self.max[r]);
            let shrink = math::exp2::<false>((self.max[r] - max) * scale);
            let weights = &mut weights[r * KEYS..][..whole];
            let sum = exp_tile_row(isa(), row, stride, M::NR, max, scale, weights);
            self.sum[r] = self.sum[r] * shrink + sum;
            self.max[r] = max;
            if k0 > 0 && shrink != 1.0 {
                for panel in self.out.as_mut_slice::<f32>().chunks_exact_mut(stride) {
                    scale_row(isa(), &mut panel[r * M::NR..(r + 1) * M::NR], shrink);
                }
            }
        }
    }

    /// Adds the mask to one row of unscaled scores.
    fn mask_tile_row(&self, row: &mut [f32], stride: usize, query: usize, k0: usize, len: usize, mask: Mask) {
        let scale = self.s.scale();
        for k in 0..len {
            let score = &mut row[k / M::NR * stride + k % M::NR];
            match mask {
                Mask::Bias(bias) => {
                    let bias = bias.f32s()[query * self.s.keys + k0 + k];
                    *score = (*score + bias / scale).max(f32::MIN);
                }
                Mask::Causal if k0 + k > query => *score = f32::MIN,
                Mask::Causal | Mask::None => {}
            }
        }
    }

    fn add_values(&mut self, weights: &[M::E], values: &[M::E], k0: usize, len: usize) {
        let padded = self.rows.next_multiple_of(M::MR);
        let rows: Vec<_> = (0..padded).map(|r| weights[r.min(self.rows - 1) * KEYS..].as_ptr()).collect();
        let per_panel = self.s.keys.next_multiple_of(M::PAIR) * M::NR;
        let per_tiles = padded * M::NR;
        let outs = self.out.as_mut_slice::<f32>().chunks_exact_mut(per_tiles);
        for (panel, out) in values.chunks_exact(per_panel).zip(outs) {
            tiles::<M>(len, &rows, &panel[k0 * M::NR..], 1, out, k0 == 0);
        }
    }

    /// Writes row `r` of the result by way of `row`, both of `d` values.
    fn store_row<T: Element>(&self, r: usize, row: &mut [f32], out: &mut [T]) {
        read_tile_row::<M>(self.out.as_slice(), self.rows.div_ceil(M::MR), r, row);
        scale_row(isa(), row, 1.0 / self.sum[r]);
        convert_slice(isa(), row, out);
    }
}

/// c = A B, or +=: `rows` of A, `panels` consecutive panels of B of depth k. c: for each panel, tiles of MR × NR.
pub(super) fn tiles<M: Micro>(
    k: usize,
    rows: &[*const M::E],
    b: &[M::E],
    panels: usize,
    c: &mut [f32],
    first: bool,
) {
    let k = k.next_multiple_of(M::PAIR);
    let per_panel = rows.len() * M::NR;
    for (p, c) in c.chunks_exact_mut(per_panel).take(panels).enumerate() {
        let panel = &b[p * k * M::NR..(p + 1) * k * M::NR];
        for (rows, tile) in rows.chunks_exact(M::MR).zip(c.chunks_exact_mut(M::MR * M::NR)) {
            // SAFETY: `isa` chose M; callers give rows of k (padded) values; panel and tile are sliced to size.
            unsafe { M::tile(k, rows.as_ptr(), panel.as_ptr(), tile.as_mut_ptr(), first) };
        }
    }
}

/// Row `r` of a matrix that is stored as tiles, for each panel `tiles` of them.
pub(super) fn read_tile_row<M: Micro>(c: &[f32], tiles: usize, r: usize, row: &mut [f32]) {
    for (p, part) in row.chunks_mut(M::NR).enumerate() {
        let at = p * tiles * M::MR * M::NR + r * M::NR;
        part.copy_from_slice(&c[at..at + part.len()]);
    }
}

simd_fn! {
    pub(super) fn scale_row(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

simd_fn! {
    /// The largest of a tile row's first `len` values: `nr` together (a multiple of 16), then `stride` on.
    pub(super) fn max_tile_row(row: &[f32], stride: usize, nr: usize, len: usize) -> f32 {
        let mut lanes = [f32::MIN; 16];
        for part in row.chunks(stride).take(len / nr) {
            for part in part[..nr].as_chunks::<16>().0 {
                for (lane, x) in lanes.iter_mut().zip(part) {
                    *lane = if *x > *lane { *x } else { *lane };
                }
            }
        }
        lanes.iter().fold(f32::MIN, |max, x| max.max(*x))
    }
}

simd_fn! {
    /// weights = 2^((row − max) scale), of a row in the layout of [`max_tile_row`]. Returns their sum.
    pub(super) fn exp_tile_row[FMA]<E: Element>(
        row: &[f32],
        stride: usize,
        nr: usize,
        max: f32,
        scale: f32,
        weights: &mut [E],
    ) -> f32 {
        let mut lanes = [0.0f32; 16];
        for (part, weights) in row.chunks(stride).zip(weights.chunks_exact_mut(nr)) {
            for (part, weights) in part[..nr].as_chunks::<16>().0.iter().zip(weights.as_chunks_mut::<16>().0) {
                for i in 0..16 {
                    let weight = math::exp2::<FMA>((part[i] - max) * scale);
                    lanes[i] += weight;
                    weights[i] = E::from_f32(weight);
                }
            }
        }
        lanes.iter().sum()
    }
}
