//! Attention's gradients. The weights are computed anew from the saved denominators, block by block, in
//! two passes: queries as rows give dq; keys as rows give dk and dv. The second pass computes the scores
//! once more, and in return every gradient is summed by one task in one order.

use rayon::prelude::*;

use super::Buffer;
use super::attention::{HeadPanels, KEYS, QUERIES, Shape, head_rows, read_tile_row, tiles};
use super::elementwise::with_element;
use super::gemm::{SharedOut, each_task, with_micro};
use super::isa::{Isa, isa, simd_fn};
use super::math::{self, Element};
use super::micro::{self, Micro};
use super::operand::convert_slice;
use crate::{DType, Tensor};

/// What attention keeps for the way back.
pub(crate) struct Saved {
    pub(crate) shape: Shape,
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) y: Tensor,
    /// (batch · heads, queries): logarithm of each softmax's denominator.
    pub(crate) lse: Tensor,
    pub(crate) causal: bool,
    /// (queries, keys)
    pub(crate) bias: Option<Tensor>,
}

/// dq, dk and dv.
pub(crate) fn backward(saved: &Saved, dy: &Tensor) -> [Tensor; 3] {
    let bf16 = dy.dtype() == DType::BF16;
    with_micro!(bf16, M => with_element!(dy.dtype(), T => run::<M, T>(saved, dy)))
}

fn run<M: Micro, T: Element>(saved: &Saved, dy: &Tensor) -> [Tensor; 3] {
    let s = saved.shape;
    let (q, k, v, dy) = (saved.q.elements::<T>(), saved.k.elements(), saved.v.elements(), dy.elements::<T>());
    let delta = delta::<T>(&s, saved.y.elements(), dy);
    let by_query = Pass::<M, T> {
        saved,
        rows: [q, dy],
        columns: [HeadPanels::of_rows::<M, T>(&s, k, s.keys), HeadPanels::of_rows::<M, T>(&s, v, s.keys)],
        sums: vec![HeadPanels::of_features::<M, T>(&s, k, s.keys)],
        delta: &delta,
        by_key: false,
        _kernel: std::marker::PhantomData,
    };
    let dq = by_query.run(s.queries, s.keys).remove(0);
    let by_key = Pass::<M, T> {
        saved,
        rows: [k, v],
        columns: [
            HeadPanels::of_rows::<M, T>(&s, q, s.queries),
            HeadPanels::of_rows::<M, T>(&s, dy, s.queries),
        ],
        sums: vec![
            HeadPanels::of_features::<M, T>(&s, q, s.queries),
            HeadPanels::of_features::<M, T>(&s, dy, s.queries),
        ],
        delta: &delta,
        by_key: true,
        _kernel: std::marker::PhantomData,
    };
    let mut gradients = by_key.run(s.keys, s.queries);
    let dv = gradients.remove(1);
    let dk = gradients.remove(0);
    let tensor = |data, like: &Tensor| Tensor::new(data, like.shape(), like.dtype());
    [tensor(dq, &saved.q), tensor(dk, &saved.k), tensor(dv, &saved.v)]
}

/// Σ y · dy of each head of each query, (batch · heads, queries).
fn delta<T: Element>(s: &Shape, y: &[T], dy: &[T]) -> Vec<f32> {
    let mut delta = vec![0.0; s.batch * s.heads * s.queries];
    delta.par_chunks_mut(s.queries.max(1)).enumerate().for_each(|(head, delta)| {
        for (i, delta) in delta.iter_mut().enumerate() {
            let at = s.at(head / s.heads * s.queries + i, head % s.heads);
            let products = y[at..at + s.d].iter().zip(&dy[at..at + s.d]);
            *delta = products.map(|(y, dy)| y.to_f32() * dy.to_f32()).sum();
        }
    });
    delta
}

/// One pass over the scores.
struct Pass<'a, M, T> {
    saved: &'a Saved,
    /// (batch, rows, heads · d): with `columns`, give the scores and the gradients of the weights.
    rows: [&'a [T]; 2],
    columns: [HeadPanels; 2],
    /// What the gradients of the scores are multiplied with and, if there is a second, the weights.
    sums: Vec<HeadPanels>,
    delta: &'a [f32],
    /// Whether keys are the rows and queries the columns.
    by_key: bool,
    _kernel: std::marker::PhantomData<M>,
}

impl<M: Micro, T: Element> Pass<'_, M, T> {
    /// One gradient (batch, rows, heads · d) for each of `sums`.
    fn run(&self, rows: usize, columns: usize) -> Vec<Buffer> {
        let s = self.saved.shape;
        let bytes = s.batch * rows * s.heads * s.d * size_of::<T>();
        let mut out: Vec<Buffer> = self.sums.iter().map(|_| Buffer::uninit(bytes)).collect();
        let shared: Vec<_> = out.iter_mut().map(|b| SharedOut(b.as_mut_slice::<u8>().as_mut_ptr())).collect();
        let blocks = rows.div_ceil(QUERIES);
        each_task(s.batch * s.heads * blocks, |task| {
            let (head, r0) = (task / blocks, task % blocks * QUERIES);
            let count = QUERIES.min(rows - r0);
            let sums = self.block(head, r0, count, rows, columns);
            let mut row = vec![0.0; s.d];
            for (sum, out) in sums.iter().zip(&shared) {
                for r in 0..count {
                    let at = s.at(head / s.heads * rows + r0 + r, head % s.heads);
                    read_tile_row::<M>(sum.as_slice(), count.div_ceil(M::MR), r, &mut row);
                    // SAFETY: this task alone writes these rows of this head.
                    convert_slice(isa(), &row, unsafe { out.slice::<T>(at, s.d) });
                }
            }
        });
        out
    }

    /// The sums of `count` rows from `r0` on, as tiles.
    fn block(&self, head: usize, r0: usize, count: usize, rows: usize, columns: usize) -> Vec<Buffer> {
        let s = self.saved.shape;
        let (padded, d) = (count.next_multiple_of(M::MR), s.d.next_multiple_of(M::PAIR));
        let first = head / s.heads * rows + r0;
        let mut scratch = [0, 1].map(|_| Buffer::uninit(padded * d * size_of::<M::E>()));
        let [scratch_a, scratch_b] = &mut scratch;
        let range = first..first + count;
        let a = head_rows::<M, T>(&s, self.rows[0], range.clone(), head % s.heads, scratch_a.as_mut_slice());
        let b = head_rows::<M, T>(&s, self.rows[1], range, head % s.heads, scratch_b.as_mut_slice());
        let mut products = [0, 1].map(|_| Buffer::uninit(padded * KEYS * 4));
        let mut weights = [0, 1].map(|_| Buffer::uninit(padded * KEYS * size_of::<M::E>()));
        let sum_bytes = s.d.div_ceil(M::NR) * M::NR * padded * 4;
        let mut sums: Vec<_> = self.sums.iter().map(|_| Buffer::uninit(sum_bytes)).collect();
        for c0 in (0..columns).step_by(KEYS) {
            let len = KEYS.min(columns - c0);
            for ((rows, columns), product) in [&a, &b].into_iter().zip(&self.columns).zip(&mut products) {
                let panels = &columns.head::<M::E>(head)[c0 * d..];
                tiles::<M>(s.d, rows, panels, len.div_ceil(M::NR), product.as_mut_slice(), true);
            }
            for r in 0..count {
                self.weigh(head, r0 + r, r, padded * M::NR, c0, len, &mut products, &mut weights);
            }
            let per_panel = columns.next_multiple_of(M::PAIR) * M::NR;
            for ((values, weights), sum) in self.sums.iter().zip(&weights).zip(&mut sums) {
                let weights = weights.as_slice::<M::E>();
                let rows: Vec<_> = (0..padded).map(|r| weights[r.min(count - 1) * KEYS..].as_ptr()).collect();
                let outs = sum.as_mut_slice::<f32>().chunks_exact_mut(padded * M::NR);
                for (panel, out) in values.head::<M::E>(head).chunks_exact(per_panel).zip(outs) {
                    tiles::<M>(len, &rows, &panel[c0 * M::NR..], 1, out, c0 == 0);
                }
            }
        }
        sums
    }

    /// From a row of scores and of gradients of weights: the gradients of the scores, and the weights.
    #[allow(clippy::too_many_arguments)]
    fn weigh(
        &self,
        head: usize,
        row: usize,
        r: usize,
        stride: usize,
        c0: usize,
        len: usize,
        products: &mut [Buffer; 2],
        weights: &mut [Buffer; 2],
    ) {
        let s = self.saved.shape;
        let [scores, grads] = products;
        let scores = &mut scores.as_mut_slice::<f32>()[r * M::NR..];
        self.mask(scores, stride, row, c0, len);
        // Of each column's query, or of this row's.
        let (lse, delta) = (&self.saved.lse.f32s()[head * s.queries..], &self.delta[head * s.queries..]);
        let whole = len.next_multiple_of(M::NR);
        let (mut lse_row, mut delta_row) = ([0.0f32; KEYS], [0.0f32; KEYS]);
        if self.by_key {
            lse_row[..len].copy_from_slice(&lse[c0..c0 + len]);
            delta_row[..len].copy_from_slice(&delta[c0..c0 + len]);
        } else {
            lse_row[..whole].fill(lse[row]);
            delta_row[..whole].fill(delta[row]);
        }
        let [ds, p] = weights;
        let ds = &mut ds.as_mut_slice::<M::E>()[r * KEYS..][..whole];
        let p = &mut p.as_mut_slice::<M::E>()[r * KEYS..][..whole];
        let grads = &grads.as_slice::<f32>()[r * M::NR..];
        softmax_gradient(isa(), scores, grads, stride, M::NR, &lse_row, &delta_row, s.scale(), ds, p);
        if len < whole {
            (ds[len], p[len]) = (M::E::from_f32(0.0), M::E::from_f32(0.0)); // the other half of an odd pair
        }
    }

    /// Adds the mask to a tile row of unscaled scores.
    fn mask(&self, scores: &mut [f32], stride: usize, row: usize, c0: usize, len: usize) {
        let Shape { keys, .. } = self.saved.shape;
        if !self.saved.causal && self.saved.bias.is_none() {
            return;
        }
        let scale = self.saved.shape.scale();
        for i in 0..len {
            let score = &mut scores[i / M::NR * stride + i % M::NR];
            let (query, key) = if self.by_key { (c0 + i, row) } else { (row, c0 + i) };
            if self.saved.causal && key > query {
                *score = f32::MIN;
            }
            if let Some(bias) = &self.saved.bias {
                *score = (*score + bias.f32s()[query * keys + key] / scale).max(f32::MIN);
            }
        }
    }
}

simd_fn! {
    /// p = e^(scale · score − lse), ds = p (dp − delta) scale. Scores and their gradients lie in tiles: `nr` together,
    /// then `stride` on.
    fn softmax_gradient[FMA]<E: Element>(
        scores: &[f32],
        grads: &[f32],
        stride: usize,
        nr: usize,
        lse: &[f32],
        delta: &[f32],
        scale: f32,
        ds: &mut [E],
        p: &mut [E],
    ) {
        let products = scores.chunks(stride).zip(grads.chunks(stride));
        let saved = lse.chunks_exact(nr).zip(delta.chunks_exact(nr));
        let out = ds.chunks_exact_mut(nr).zip(p.chunks_exact_mut(nr));
        for (((scores, grads), (lse, delta)), (ds, p)) in products.zip(saved).zip(out) {
            for i in 0..nr {
                let weight = math::exp2::<FMA>((scores[i] * scale - lse[i]) * std::f32::consts::LOG2_E);
                p[i] = E::from_f32(weight);
                ds[i] = E::from_f32(weight * (grads[i] - delta[i]) * scale);
            }
        }
    }
}
