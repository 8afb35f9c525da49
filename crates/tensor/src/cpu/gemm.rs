//! Matrix products with fused epilogues: linear layers and, through [`Rows::Image`], convolutions.
//!
//! C (m, n) = A (m, taps · k) B (taps · k, n), cut into blocks of `MC` rows and `NC` columns that tasks
//! take. A block goes through k in chunks of `KC`; in each, one panel of B stays in the first-level
//! cache while all the block's rows pass by (Goto & van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication"). Every element is summed over k in one order, whatever the number of threads.

use rayon::prelude::*;

use super::Buffer;
use super::elementwise::{full, to_vec, with_element};
use super::isa::{Isa, isa, simd_fn};
use super::math::{self, Element};
use super::micro::{self, Micro};
use super::operand::{Chunk, KC, Rows};
use super::panels::Panels;
use crate::backend::{Activation, Epilogue};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Rows of a block at most: a multiple of every kernel's MR. SDXL's row counts are multiples of 256.
pub(super) const MC: usize = 264;
/// Columns of a block.
const NC: usize = 128;
/// Calls `$body` with `$M` standing for this CPU's kernel; `$bf16`: the one that multiplies bf16, if there is one.
/// `with_micro!(bf16, M => f::<M>())` stands for
/// ```ignore
/// match isa() {
///     Isa::Avx512Bf16 if bf16 => { type M = micro::Avx512Bf16; f::<M>() }
///     Isa::Avx2 => { type M = micro::Avx2; f::<M>() }
///     // and so on, a kernel for each set
/// }
/// ```
macro_rules! with_micro {
    ($bf16:expr, $M:ident => $body:expr) => {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 if $bf16 => {
                type $M = micro::Avx512Bf16;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => {
                type $M = micro::Avx512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                type $M = micro::Avx2;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                type $M = micro::Neon;
                $body
            }
            Isa::Emulated if $bf16 => {
                type $M = micro::EmulatedBf16;
                $body
            }
            Isa::Emulated => {
                type $M = micro::Emulated;
                $body
            }
            _ => {
                type $M = micro::Portable;
                $body
            }
        }
    };
}
pub(super) use with_micro;

/// One product.
pub(crate) struct Gemm<'a> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// Depth of one tap.
    pub(crate) k: usize,
    /// 1, or a convolution's kernel positions.
    pub(crate) taps: usize,
    pub(crate) a: Rows<'a>,
    pub(crate) b: Panels<'a>,
    pub(crate) epilogue: Epilogue<'a>,
    /// Of the output.
    pub(crate) dtype: DType,
}

/// An output that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct SharedOut(pub(super) *mut u8);
// SAFETY: tasks write disjoint ranges, and the buffer outlives them.
unsafe impl Send for SharedOut {}
// SAFETY: as above.
unsafe impl Sync for SharedOut {}

impl SharedOut {
    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// The range lies in the buffer, and no one else touches it during the slice's life.
    pub(super) unsafe fn slice<'a, T>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise; buffers are aligned for every element type.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast::<T>().add(start), len) }
    }
}

/// Whether GEGLU can be an epilogue: its two halves must be whole panels.
pub(crate) fn fuses_geglu(n: usize) -> bool {
    n.is_multiple_of(2 * super::pack::panel_width(isa()))
}

/// Computes the product: a buffer of (m, n) elements, (m, n / 2) for GEGLU.
pub(crate) fn gemm(g: &Gemm) -> Buffer {
    if g.m == 0 || g.n == 0 {
        return Buffer::zeroed(0);
    }
    if g.k == 0 || g.taps == 0 {
        // A sum over nothing: the same as one over a single 0.
        let zeros = |shape: &[usize]| full(shape, 0.0, DType::F32);
        let (a, b) = (zeros(&[g.m, 1]), zeros(&[1, g.n]));
        return gemm(&Gemm { k: 1, taps: 1, a: Rows::Matrix(&a), b: Panels::Matrix(&b), ..*g });
    }
    let bf16 = g.a.dtype() == DType::BF16 && g.b.dtype() == DType::BF16;
    with_micro!(bf16, M => run::<M>(g))
}

impl Gemm<'_> {
    /// Rows of a block at most. Panels of frequencies are made for each block: where rows take half the memory, twice as many share
    /// a panel.
    fn most_rows(&self) -> usize {
        if self.b.are_frequencies() && self.a.dtype() == DType::BF16 { 2 * MC } else { MC }
    }
}

fn run<M: Micro>(g: &Gemm) -> Buffer {
    let width = if g.epilogue.act == Activation::Geglu { g.n / 2 } else { g.n };
    let mut out = Buffer::uninit(g.m * width * g.dtype.size());
    let shared = SharedOut(out.as_mut_slice::<u8>().as_mut_ptr());
    let bias = g.epilogue.bias.map(to_vec);
    let shift = g.epilogue.shift.map(to_vec);
    let panels = g.n.div_ceil(M::NR);
    let row_blocks = g.m.div_ceil(g.most_rows());
    let block_rows = g.m.div_ceil(row_blocks.max(1)).next_multiple_of(M::MR);
    // Few rows: narrower blocks, so that there is work for every core.
    let per_block = (NC / M::NR).min((panels * row_blocks).div_ceil(32)).next_multiple_of(2);
    let blocks = row_blocks * panels.div_ceil(per_block);
    let spaced = g.a.spaced::<M>(g.m, panels.div_ceil(per_block));
    let a = spaced.as_ref().map_or(g.a, Rows::Matrix);
    each_task(blocks, |task| {
        let first = task / row_blocks * per_block;
        let block = Block::<M> {
            g,
            a,
            m0: task % row_blocks * block_rows,
            rows: block_rows.min(g.m - task % row_blocks * block_rows),
            first_panel: first,
            panels: per_block.min(panels - first),
            width,
            _kernel: std::marker::PhantomData,
        };
        let c = block.multiply();
        with_element!(g.dtype, T => block.finish::<T>(&c, bias.as_deref(), shift.as_deref(), shared));
    });
    out
}

/// Runs `count` large tasks, each handed out alone. By default rayon hands out several tasks together, so that at the end other threads
/// wait for the one that has the last of them.
pub(super) fn each_task(count: usize, task: impl Fn(usize) + Sync + Send) {
    (0..count).into_par_iter().with_max_len(1).for_each(task);
}

/// A task's part of the output.
struct Block<'a, M> {
    g: &'a Gemm<'a>,
    a: Rows<'a>,
    m0: usize,
    rows: usize,
    first_panel: usize,
    panels: usize,
    /// Columns of the output.
    width: usize,
    _kernel: std::marker::PhantomData<M>,
}

impl<M: Micro> Block<'_, M> {
    fn tiles(&self) -> usize {
        self.rows.div_ceil(M::MR)
    }

    /// Which panel of B the block's `i`-th is. GEGLU takes its two halves in turns.
    fn panel(&self, i: usize) -> usize {
        let i = self.first_panel + i;
        let half = self.g.n / M::NR / 2;
        if self.g.epilogue.act == Activation::Geglu { i % 2 * half + i / 2 } else { i }
    }

    /// The product before the epilogue: tiles, for each panel.
    fn multiply(&self) -> Buffer {
        let (g, tiles) = (self.g, self.tiles());
        let mut c = Buffer::uninit(self.panels * tiles * M::MR * M::NR * 4);
        let c_tiles = c.as_mut_slice::<f32>();
        let mut rows = self.a.gather::<M>(self.m0, self.rows);
        let mut scratch = Buffer::uninit(KC * M::NR * size_of::<M::E>());
        let mut first = true;
        for tap in 0..g.taps {
            for k0 in (0..g.k).step_by(KC) {
                let chunk = Chunk { tap, k0, len: KC.min(g.k - k0) };
                let pointers = rows.pointers(&chunk);
                for i in 0..self.panels {
                    let panel = g.b.panel::<M>(self.panel(i), &chunk, scratch.as_mut_slice());
                    let tile_row = &mut c_tiles[i * tiles * M::MR * M::NR..][..tiles * M::MR * M::NR];
                    for (tile, rows) in
                        tile_row.chunks_exact_mut(M::MR * M::NR).zip(pointers.chunks_exact(M::MR))
                    {
                        let len = chunk.len.next_multiple_of(M::PAIR);
                        // SAFETY: `isa` chose M; `pointers` and `panel` give `len` values each, the tile MR · NR.
                        unsafe { M::tile(len, rows.as_ptr(), panel, tile.as_mut_ptr(), first) };
                    }
                }
                first = false;
            }
        }
        c
    }

    /// Epilogue and output, row by row.
    fn finish<T: Element>(&self, c: &Buffer, bias: Option<&[f32]>, shift: Option<&[f32]>, out: SharedOut) {
        let (g, c) = (self.g, c.as_slice::<f32>());
        let geglu = g.epilogue.act == Activation::Geglu;
        let residual = g.epilogue.residual.map(Tensor::elements::<T>);
        let rows_per_image = shift.map_or(g.m, |s| g.m / (s.len() / g.n));
        let mut values = [0.0f32; NC + 64];
        // GEGLU: `values` holds the first halves, then the gates.
        let parts = if geglu { 2 } else { 1 };
        let part = self.panels / parts * M::NR;
        let n0 = self.first_panel / parts * M::NR;
        let columns = part.min(self.width - n0);
        for r in 0..self.rows {
            let row = self.m0 + r;
            for i in 0..self.panels {
                let tile = (i * self.tiles() + r / M::MR) * M::MR * M::NR + r % M::MR * M::NR;
                let at = i % parts * part + i / parts * M::NR;
                values[at..at + M::NR].copy_from_slice(&c[tile..tile + M::NR]);
            }
            for half in 0..parts {
                let values = &mut values[half * part..][..columns];
                let n0 = half * self.width + n0;
                if let Some(bias) = bias {
                    add_row(isa(), values, &bias[n0..n0 + columns]);
                }
                if let Some(shift) = shift {
                    add_row(isa(), values, &shift[row / rows_per_image * g.n + n0..][..columns]);
                }
            }
            let (values, gate) = values.split_at_mut(part);
            let round = |x: f32| T::from_f32(x).to_f32();
            activate(isa(), &mut values[..columns], gate, g.epilogue.act, &round);
            let at = row * self.width + n0;
            // SAFETY: this task alone writes this row's columns.
            let out = unsafe { out.slice::<T>(at, columns) };
            store_row(isa(), &values[..columns], residual.map(|r| &r[at..at + columns]), out);
        }
    }
}

simd_fn! {
    fn add_row(values: &mut [f32], bias: &[f32]) {
        for (value, bias) in values.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

simd_fn! {
    /// Applies the activation. `round` rounds to the output's dtype, at the places where an activation that is an op of its own rounds:
    /// before the activation, and after it, where a residual may follow. So a result does not depend on whether a gradient is asked for.
    fn activate<F: Fn(f32) -> f32>(values: &mut [f32], gate: &[f32], act: Activation, round: &F) {
        match act {
            Activation::None => {}
            Activation::Silu => values.iter_mut().for_each(|x| *x = round(math::silu(round(*x)))),
            Activation::Gelu => values.iter_mut().for_each(|x| *x = round(math::gelu(round(*x)))),
            Activation::QuickGelu => values.iter_mut().for_each(|x| *x = round(math::quick_gelu(round(*x)))),
            Activation::Relu => values.iter_mut().for_each(|x| *x = math::relu(round(*x))),
            Activation::Geglu => {
                values.iter_mut().zip(gate).for_each(|(x, g)| *x = round(round(*x) * math::gelu(round(*g))));
            }
        }
    }
}

simd_fn! {
    fn store_row<T: Element>(values: &[f32], residual: Option<&[T]>, out: &mut [T]) {
        match residual {
            None => out.iter_mut().zip(values).for_each(|(y, x)| *y = T::from_f32(*x)),
            Some(r) => out.iter_mut().zip(values).zip(r).for_each(|((y, x), r)| *y = T::from_f32(x + r.to_f32())),
        }
    }
}
