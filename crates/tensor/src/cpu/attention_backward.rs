//! Attention's gradients. The weights are computed anew from the saved denominators, a block of keys against a
//! block of queries at a time (Dao et al., "FlashAttention-2", 2023): a task goes through a group of one head's keys,
//! whose dk and dv it sums alone, and keeps its share of the head's dq. Shares are added in the order of the groups,
//! and the number of keys alone says what the groups are, so that every sum has one order whatever the number of threads
//! and whatever else is in the batch.

use rayon::prelude::*;

use super::Buffer;
use super::attention::{HeadPanels, Visible, head_rows, read_tile_row, tiles};
use super::elementwise::with_element;
use super::gemm::{SharedOut, each_task, with_micro};
use super::isa::{Isa, isa, simd_fn};
use super::math::{self, Element};
use super::micro::{self, Micro};
use super::operand::convert_slice;
use super::transpose::transpose;
use crate::backend::{AttentionSaved, HeadShape, Mask};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Keys of a block, and queries of a block: multiples of every kernel's MR, and queries of every NR.
const KEYS: usize = 48;
const QUERIES: usize = 192;
/// Groups of a head's keys at most. A group takes memory for a share of dq.
const MAX_GROUPS: usize = 4;
/// The number of tasks that keeps every core busy. No more images are computed at once than give so many tasks, because each image
/// takes memory for its shares.
const TASKS: usize = 64;

/// dq, dk and dv.
pub(super) fn backward(saved: &AttentionSaved, dy: &Tensor) -> [Tensor; 3] {
    let visible = Visible::of(saved.mask());
    let (dy, mask) = (&visible.clear(dy), visible.mask());
    let bf16 = dy.dtype() == DType::BF16;
    with_micro!(bf16, M => with_element!(dy.dtype(), T => Pass::<M, T>::new(saved, mask, dy).run()))
}

/// Σ y · dy of each head of each query, (batch · heads, queries).
fn delta<T: Element>(s: &HeadShape, y: &[T], dy: &[T]) -> Vec<f32> {
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

/// The packed inputs from which the gradients of one attention are computed.
struct Pass<'a, M, T> {
    saved: &'a AttentionSaved,
    mask: Mask<'a>,
    /// (batch, keys, heads · d): k gives the scores with `queries[0]`, v the gradients of the weights with `queries[1]`.
    keys: [&'a [T]; 2],
    /// q and dy, as columns.
    queries: [HeadPanels; 2],
    /// q, which gives dk with the gradients of the scores, and dy, which gives dv with the weights.
    features: [HeadPanels; 2],
    /// k, which gives dq with the gradients of the scores.
    key_features: HeadPanels,
    /// Σ y · dy, (batch · heads, queries).
    delta: Vec<f32>,
    /// Keys of a group.
    group: usize,
    _kernel: std::marker::PhantomData<M>,
}

impl<'a, M: Micro, T: Element> Pass<'a, M, T> {
    fn new(saved: &'a AttentionSaved, mask: Mask<'a>, dy: &Tensor) -> Self {
        let s = &saved.shape;
        let [q, k, v] = saved.qkv.each_ref().map(Tensor::elements::<T>);
        let dy = dy.elements::<T>();
        Self {
            saved,
            mask,
            keys: [k, v],
            queries: [q, dy].map(|x| HeadPanels::of_rows::<M, T>(s, x, s.queries)),
            features: [q, dy].map(|x| HeadPanels::of_features::<M, T>(s, x, s.queries)),
            key_features: HeadPanels::of_features::<M, T>(s, k, s.keys),
            delta: delta::<T>(s, saved.y.elements(), dy),
            group: s.keys.div_ceil(MAX_GROUPS).next_multiple_of(KEYS).max(KEYS),
            _kernel: std::marker::PhantomData,
        }
    }

    fn run(&self) -> [Tensor; 3] {
        let s = self.saved.shape;
        let groups = s.keys.div_ceil(self.group);
        let inputs = self.saved.qkv.each_ref();
        let mut results = inputs.map(|x| Buffer::uninit(x.numel() * size_of::<T>()));
        let out = results.each_mut().map(|b| SharedOut(b.as_mut_slice::<u8>().as_mut_ptr()));
        let at_once = TASKS.div_ceil((s.heads * groups).max(1)).min(s.batch.max(1));
        let mut shares = Buffer::uninit(at_once * s.heads * groups * self.share() * 4);
        for first in (0..s.batch).step_by(at_once) {
            let images = first..s.batch.min(first + at_once);
            let shared = SharedOut(shares.as_mut_slice::<u8>().as_mut_ptr());
            each_task(images.len() * s.heads * groups, |task| {
                let (head, k0) = (first * s.heads + task / groups, task % groups * self.group);
                // SAFETY: this task's share.
                let dq = unsafe { shared.slice::<f32>(task * self.share(), self.share()) };
                self.key_group(head, k0..s.keys.min(k0 + self.group), dq, [out[1], out[2]]);
            });
            self.sum_shares(shares.as_slice(), groups, images, out[0]);
        }
        let mut results = results.into_iter();
        inputs.map(|x| Tensor::new(results.next().expect("one for each"), x.shape(), x.dtype()))
    }

    /// dk and dv of a group of one head's keys, which only this task writes, and the group's share of dq.
    fn key_group(&self, head: usize, keys: std::ops::Range<usize>, dq: &mut [f32], out: [SharedOut; 2]) {
        let s = self.saved.shape;
        let mut row = vec![0.0; s.d];
        for first in keys.clone().step_by(KEYS) {
            let count = KEYS.min(keys.end - first);
            let sums = self.block(head, first, count, dq, first == keys.start);
            for (sum, out) in sums.iter().zip(out) {
                for r in 0..count {
                    let at = s.at(head / s.heads * s.keys + first + r, head % s.heads);
                    read_tile_row::<M>(sum.as_slice(), count.div_ceil(M::MR), r, &mut row);
                    // SAFETY: this task alone writes these keys of its head.
                    convert_slice(isa(), &row, unsafe { out.slice::<T>(at, s.d) });
                }
            }
        }
    }

    /// Columns of a head's gradients as tiles.
    fn padded_d(&self) -> usize {
        self.saved.shape.d.next_multiple_of(M::NR)
    }

    /// Values of a share of dq: for each block of queries, tiles.
    fn share(&self) -> usize {
        self.saved.shape.queries.next_multiple_of(M::MR) * self.padded_d()
    }

    /// dq (batch, queries, heads · d) of some images, of their shares (images · heads, groups, queries as tiles).
    fn sum_shares(&self, shares: &[f32], groups: usize, images: std::ops::Range<usize>, dq: SharedOut) {
        let s = self.saved.shape;
        (0..images.len() * s.queries).into_par_iter().with_min_len(16).for_each(|row| {
            let (image, query) = (row / s.queries, row % s.queries);
            let (first, r) = (query / QUERIES * QUERIES, query % QUERIES);
            let tiles = QUERIES.min(s.queries - first).div_ceil(M::MR);
            let (mut sum, mut share) = (vec![0.0; s.d], vec![0.0; s.d]);
            // SAFETY: this task alone writes this query's row.
            let out = unsafe { dq.slice::<T>(s.at(images.start * s.queries + row, 0), s.heads * s.d) };
            for (head, out) in out.chunks_exact_mut(s.d).enumerate() {
                let of_head = &shares[(image * s.heads + head) * groups * self.share()..];
                for group in 0..groups {
                    let block = &of_head[group * self.share() + first * self.padded_d()..];
                    read_tile_row::<M>(block, tiles, r, if group == 0 { &mut sum } else { &mut share });
                    if group > 0 {
                        sum.iter_mut().zip(&share).for_each(|(sum, x)| *sum += x);
                    }
                }
                convert_slice(isa(), &sum, out);
            }
        });
    }

    /// dk and dv of `count` keys from `k0` on, as tiles, summed over all queries; to `dq`, what they add to it.
    fn block(&self, head: usize, k0: usize, count: usize, dq: &mut [f32], first: bool) -> [Buffer; 2] {
        let s = self.saved.shape;
        let (padded, d) = (count.next_multiple_of(M::MR), s.d.next_multiple_of(M::PAIR));
        let at = head / s.heads * s.keys + k0;
        let mut scratch = [0, 1].map(|_| Buffer::uninit(padded * d * size_of::<M::E>()));
        let [mut k_rows, mut v_rows] = [vec![], vec![]];
        for ((x, scratch), rows) in self.keys.iter().zip(&mut scratch).zip([&mut k_rows, &mut v_rows]) {
            *rows = head_rows::<M, T>(&s, x, at..at + count, head % s.heads, scratch.as_mut_slice());
        }
        let mut products = [0, 1].map(|_| Buffer::uninit(padded * QUERIES * 4));
        let mut weights = [0, 1].map(|_| Buffer::uninit(padded * QUERIES * size_of::<M::E>()));
        let mut turned = Buffer::uninit(QUERIES * KEYS * size_of::<M::E>());
        let mut sums = [0, 1].map(|_| Buffer::uninit(self.padded_d() * padded * 4));
        for q0 in (0..s.queries).step_by(QUERIES) {
            let len = QUERIES.min(s.queries - q0);
            for ((rows, columns), product) in
                [&k_rows, &v_rows].into_iter().zip(&self.queries).zip(&mut products)
            {
                let panels = &columns.head::<M::E>(head)[q0 * d..];
                tiles::<M>(s.d, rows, panels, len.div_ceil(M::NR), product.as_mut_slice(), true);
            }
            self.weigh(head, [k0, count], [q0, len], &mut products, &mut weights);
            for ((features, weights), sum) in self.features.iter().zip(&weights).zip(&mut sums) {
                let rows = row_pointers::<M>(weights.as_slice(), QUERIES, count);
                self.add(len, &rows, features.head(head), [q0, s.queries], sum.as_mut_slice(), q0 == 0);
            }
            let turned = turned.as_mut_slice::<M::E>();
            transpose(weights[0].as_slice::<M::E>(), QUERIES, [count, len], turned, KEYS);
            if !count.is_multiple_of(M::PAIR) {
                turned.chunks_exact_mut(KEYS).for_each(|row| row[count] = M::E::from_f32(0.0));
            }
            let rows = row_pointers::<M>(turned, KEYS, len);
            let dq = &mut dq[q0 * self.padded_d()..][..rows.len() * self.padded_d()];
            self.add(count, &rows, self.key_features.head(head), [k0, s.keys], dq, first);
        }
        sums
    }

    /// sums = rows B, or +=: `depth` rows of B from `start` of `all` on, in panels of features.
    fn add(
        &self,
        depth: usize,
        rows: &[*const M::E],
        features: &[M::E],
        [start, all]: [usize; 2],
        sums: &mut [f32],
        first: bool,
    ) {
        let per_panel = all.next_multiple_of(M::PAIR) * M::NR;
        let sums = sums.chunks_exact_mut(rows.len() * M::NR);
        for (panel, sum) in features.chunks_exact(per_panel).zip(sums) {
            tiles::<M>(depth, rows, &panel[start * M::NR..], 1, sum, first);
        }
    }

    /// Computes the gradients of the scores, and the weights, from the scores and the gradients of the weights. QUERIES values a row.
    fn weigh(
        &self,
        head: usize,
        [k0, count]: [usize; 2],
        [q0, len]: [usize; 2],
        products: &mut [Buffer; 2],
        weights: &mut [Buffer; 2],
    ) {
        let s = self.saved.shape;
        let stride = count.next_multiple_of(M::MR) * M::NR;
        let whole = len.next_multiple_of(M::NR);
        let (mut lse, mut delta) = ([0.0f32; QUERIES], [0.0f32; QUERIES]);
        let at = head * s.queries + q0;
        lse[..len].copy_from_slice(&self.saved.lse.f32s()[at..at + len]);
        delta[..len].copy_from_slice(&self.delta[at..at + len]);
        let [scores, grads] = products;
        let [ds, p] = weights;
        for r in 0..count {
            let scores = &mut scores.as_mut_slice::<f32>()[r * M::NR..];
            self.add_mask(scores, stride, k0 + r, q0, len);
            let grads = &grads.as_slice::<f32>()[r * M::NR..];
            let ds = &mut ds.as_mut_slice::<M::E>()[r * QUERIES..][..whole];
            let p = &mut p.as_mut_slice::<M::E>()[r * QUERIES..][..whole];
            softmax_gradient(isa(), scores, grads, stride, M::NR, &lse, &delta, s.scale(), ds, p);
            if len < whole {
                (ds[len], p[len]) = (M::E::from_f32(0.0), M::E::from_f32(0.0)); // the other half of an odd pair
            }
        }
    }

    /// Adds the mask to a tile row of unscaled scores, one key's.
    fn add_mask(&self, scores: &mut [f32], stride: usize, key: usize, q0: usize, len: usize) {
        let HeadShape { keys, .. } = self.saved.shape;
        if matches!(self.mask, Mask::None) {
            return;
        }
        let scale = self.saved.shape.scale();
        for i in 0..len {
            let score = &mut scores[i / M::NR * stride + i % M::NR];
            let query = q0 + i;
            match self.mask {
                Mask::Causal if key > query => *score = f32::MIN,
                Mask::Bias(bias) => {
                    *score = (*score + bias.f32s()[query * keys + key] / scale).max(f32::MIN);
                }
                Mask::Causal | Mask::None => {}
            }
        }
    }
}

/// Pointers to the first `count` rows of x, and to the last one again until there are whole tiles.
fn row_pointers<M: Micro>(x: &[M::E], stride: usize, count: usize) -> Vec<*const M::E> {
    (0..count.next_multiple_of(M::MR)).map(|r| x[r.min(count - 1) * stride..].as_ptr()).collect()
}

simd_fn! {
    /// p = e^(scale · score − lse), ds = p (dp − delta) scale. Scores and their gradients lie in tiles: `nr` together
    /// (a multiple of 16), then `stride` on.
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
            let products = scores[..nr].as_chunks::<16>().0.iter().zip(grads[..nr].as_chunks::<16>().0);
            let saved = lse.as_chunks::<16>().0.iter().zip(delta.as_chunks::<16>().0);
            let out = ds.as_chunks_mut::<16>().0.iter_mut().zip(p.as_chunks_mut::<16>().0);
            for (((scores, grads), (lse, delta)), (ds, p)) in products.zip(saved).zip(out) {
                for i in 0..16 {
                    let weight = math::exp2::<FMA>((scores[i] * scale - lse[i]) * std::f32::consts::LOG2_E);
                    p[i] = E::from_f32(weight);
                    ds[i] = E::from_f32(weight * (grads[i] - delta[i]) * scale);
                }
            }
        }
    }
}
