//! The operands of a product: where the rows of A and the panels of B come from.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Buffer;
use super::elementwise::with_element;
use super::gemm::{KC, zero_row};
use super::isa::{isa, simd_fn};
use super::math::Element;
use super::micro::Micro;
use super::pack::Packed;
use super::winograd::kernel_factors;
use crate::{DType, Tensor};

/// A part of the depth: `len` (at most KC) of tap `tap` from `k0` on.
pub(super) struct Chunk {
    pub(super) tap: usize,
    pub(super) k0: usize,
    pub(super) len: usize,
}

/// How a convolution's window lies on an image (B, H, W, C).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Height and width of the image that is read.
    pub(crate) size: [usize; 2],
    /// Height and width of the image whose pixels are the rows.
    pub(crate) rows: [usize; 2],
    /// Height and width of the kernel.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Zeros above and to the left.
    pub(crate) pad: usize,
    /// False: row (y, x) reads (y · stride + ky − pad, …), a convolution. True: it reads the pixels whose
    /// window holds it, (y + pad − ky) / stride, the gradient of one.
    pub(crate) transposed: bool,
}

impl Window {
    /// Where along one axis row `at` reads for kernel position `tap`.
    fn source(&self, at: usize, tap: usize, size: usize) -> Option<usize> {
        let from = if self.transposed {
            let shifted = (at + self.pad).checked_sub(tap)?;
            shifted.is_multiple_of(self.stride).then_some(shifted / self.stride)?
        } else {
            (at * self.stride + tap).checked_sub(self.pad)?
        };
        (from < size).then_some(from)
    }

    /// The pixel that row `row` reads for kernel position `tap`; None in the padding.
    fn pixel(&self, row: [usize; 3], tap: usize) -> Option<usize> {
        let [image, y, x] = row;
        let y = self.source(y, tap / self.kernel[1], self.size[0])?;
        let x = self.source(x, tap % self.kernel[1], self.size[1])?;
        Some((image * self.size[0] + y) * self.size[1] + x)
    }

    /// Image, y and x of a row.
    fn position(&self, row: usize) -> [usize; 3] {
        let [height, width] = self.rows;
        [row / (height * width), row / width % height, row % width]
    }
}

/// The rows of A.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Row-major (m, k).
    Matrix(&'a Tensor),
    /// The transpose of a row-major (k, m).
    Transposed(&'a Tensor),
    /// The pixels of an image (B, H, W, k) under a window.
    Image(&'a Tensor, Window),
}

impl<'a> Rows<'a> {
    fn tensor(&self) -> &'a Tensor {
        match self {
            Rows::Matrix(x) | Rows::Transposed(x) | Rows::Image(x, _) => x,
        }
    }

    pub(super) fn dtype(&self) -> DType {
        self.tensor().dtype()
    }

    /// Prepares to read `count` rows from `m0` on.
    pub(super) fn gather<M: Micro>(&self, m0: usize, count: usize) -> Gathered<'a, M> {
        let padded = count.next_multiple_of(M::MR);
        let odd = !self.tensor().last_dim().is_multiple_of(M::PAIR);
        let copies = self.dtype() != M::E::DTYPE || odd || matches!(self, Rows::Transposed(_));
        let scratch = Buffer::uninit(if copies { padded * KC * size_of::<M::E>() } else { 0 });
        let positions = match self {
            Rows::Image(_, window) => (m0..m0 + count).map(|row| window.position(row)).collect(),
            _ => Vec::new(),
        };
        let pointers = vec![zero_row::<M::E>(); padded];
        Gathered { rows: *self, m0, count, copies, scratch, positions, pointers }
    }
}

/// A block's rows of A, chunk by chunk.
pub(super) struct Gathered<'a, M: Micro> {
    rows: Rows<'a>,
    m0: usize,
    count: usize,
    /// Whether rows are copied (converted, transposed or padded) rather than pointed to.
    copies: bool,
    scratch: Buffer,
    positions: Vec<[usize; 3]>,
    pointers: Vec<*const M::E>,
}

impl<M: Micro> Gathered<'_, M> {
    /// Pointers to `chunk.len` values of each row (rounded up to pairs), the last tile filled up with rows of zeros.
    pub(super) fn pointers(&mut self, chunk: &Chunk) -> &[*const M::E] {
        if let Rows::Transposed(x) = self.rows {
            with_element!(x.dtype(), T => self.transpose::<T>(x, chunk));
            return &self.pointers;
        }
        for r in 0..self.count {
            self.pointers[r] = match self.row(r, chunk) {
                None => zero_row(),
                Some(start) if self.copies => {
                    with_element!(self.rows.dtype(), T => self.copy::<T>(r, start, chunk))
                }
                Some(start) => self.rows.tensor().elements::<M::E>()[start..start + chunk.len].as_ptr(),
            };
        }
        &self.pointers
    }

    /// Where row `r` of the block starts in the tensor, for a chunk.
    fn row(&self, r: usize, chunk: &Chunk) -> Option<usize> {
        let row = match &self.rows {
            Rows::Image(_, window) => window.pixel(self.positions[r], chunk.tap)?,
            _ => self.m0 + r,
        };
        Some(row * self.rows.tensor().last_dim() + chunk.k0)
    }

    fn copy<T: Element>(&mut self, r: usize, start: usize, chunk: &Chunk) -> *const M::E {
        let row = &mut self.scratch.as_mut_slice::<M::E>()[r * KC..(r + 1) * KC];
        let (row, rest) = row.split_at_mut(chunk.len);
        convert_slice(isa(), &self.rows.tensor().elements::<T>()[start..start + chunk.len], row);
        if let Some(pad) = rest.first_mut() {
            *pad = M::E::from_f32(0.0);
        }
        row.as_ptr()
    }

    fn transpose<T: Element>(&mut self, x: &Tensor, chunk: &Chunk) {
        let width = x.last_dim();
        let scratch = self.scratch.as_mut_slice::<M::E>();
        let padded = chunk.len.next_multiple_of(M::PAIR);
        for k in 0..padded {
            let column = (k < chunk.len).then(|| &x.elements::<T>()[(chunk.k0 + k) * width + self.m0..]);
            for r in 0..self.count {
                scratch[r * KC + k] = M::E::from_f32(column.map_or(0.0, |column| column[r].to_f32()));
            }
        }
        for (r, pointer) in self.pointers.iter_mut().enumerate().take(self.count) {
            *pointer = scratch[r * KC..].as_ptr();
        }
    }
}

simd_fn! {
    pub(super) fn convert_slice<X: Element, Y: Element>(x: &[X], y: &mut [Y]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(x.to_f32());
        }
    }
}

/// The panels of B.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    /// B = Wᵀ: k runs over the weight's inputs, n over its outputs.
    Packed(&'a Packed),
    /// B = W: k runs over the weight's outputs, n over its inputs.
    Transposed(&'a Packed),
    /// One frequency of 3 × 3 kernels: k runs over their inputs, n over their outputs.
    Winograd(&'a Packed, usize),
    /// Row-major (k, n).
    Matrix(&'a Tensor),
    /// The pixels of an image (B, H, W, n) at one kernel position: k runs over the window's rows.
    Image(&'a Tensor, Window, usize),
}

impl Panels<'_> {
    pub(super) fn dtype(&self) -> DType {
        match self {
            Panels::Packed(w) | Panels::Transposed(w) => w.store,
            Panels::Winograd(..) => DType::F32,
            Panels::Matrix(x) | Panels::Image(x, ..) => x.dtype(),
        }
    }

    /// A panel's rows of a chunk: a pointer into the weight where it already has the kernel's layout, else
    /// into `scratch` (KC · NR).
    pub(super) fn panel<M: Micro>(&self, p: usize, chunk: &Chunk, scratch: &mut [M::E]) -> *const M::E {
        match self {
            Panels::Packed(w) => {
                let row = w.row(chunk.tap, chunk.k0);
                if w.store == M::E::DTYPE && w.pair == M::PAIR {
                    return w.panel::<M::E>(p, row).as_ptr();
                }
                let len = chunk.len.next_multiple_of(w.pair) * w.nr;
                unpack_rows(w, p, row, &mut scratch[..len]);
            }
            Panels::Winograd(w, frequency) => {
                debug_assert_eq!(M::PAIR, 1, "frequencies are f32");
                let scratch: &mut [f32] = bytemuck::cast_slice_mut(scratch);
                let len = chunk.len.next_multiple_of(w.pair) * w.nr;
                transform_kernels(w, p, chunk.k0, *frequency, &mut scratch[..len]);
            }
            Panels::Transposed(w) => fill::<M>(scratch, chunk.len, w.inp - p * M::NR, |k, column| {
                w.get(chunk.k0 + k, p * M::NR + column, chunk.tap)
            }),
            Panels::Matrix(x) => with_element!(x.dtype(), T => {
                let (x, n) = (x.elements::<T>(), x.last_dim());
                fill::<M>(scratch, chunk.len, n - p * M::NR, |k, column| {
                    x[(chunk.k0 + k) * n + p * M::NR + column].to_f32()
                });
            }),
            Panels::Image(x, window, tap) => with_element!(x.dtype(), T => {
                let (x, n) = (x.elements::<T>(), x.last_dim());
                fill::<M>(scratch, chunk.len, n - p * M::NR, |k, column| {
                    let pixel = window.pixel(window.position(chunk.k0 + k), *tap);
                    pixel.map_or(0.0, |pixel| x[pixel * n + p * M::NR + column].to_f32())
                });
            }),
        }
        scratch.as_ptr()
    }
}

/// Fills a panel from `value(k, column)`, with zeros beyond `columns` and beyond `len`.
fn fill<M: Micro>(panel: &mut [M::E], len: usize, columns: usize, value: impl Fn(usize, usize) -> f32) {
    for k in 0..len.next_multiple_of(M::PAIR) {
        for column in 0..M::NR {
            let inside = k < len && column < columns;
            let x = if inside { value(k, column) } else { 0.0 };
            panel[(k / M::PAIR * M::NR + column) * M::PAIR + k % M::PAIR] = M::E::from_f32(x);
        }
    }
}

/// Rows of a panel from `row` on, in whatever they are stored, as rows of E.
fn unpack_rows<E: Element>(w: &Packed, p: usize, row: usize, out: &mut [E]) {
    let len = out.len();
    match w.store {
        DType::F32 => convert_slice(isa(), &w.panel::<f32>(p, row)[..len], out),
        DType::BF16 if w.pair == 2 => unpair(isa(), &w.panel::<bf16>(p, row)[..len], w.nr, out),
        DType::BF16 => convert_slice(isa(), &w.panel::<bf16>(p, row)[..len], out),
        DType::F16 => {
            let out: &mut [f32] = bytemuck::cast_slice_mut(out);
            w.panel::<f16>(p, row)[..len].convert_to_f32_slice(out);
        }
    }
}

/// One Winograd frequency of a panel's 3 × 3 kernels, for the channels from `k0` on.
fn transform_kernels(w: &Packed, p: usize, k0: usize, frequency: usize, out: &mut [f32]) {
    out.fill(0.0);
    let mut tap_rows = Buffer::uninit(if w.store == DType::F32 { 0 } else { out.len() * 4 });
    for (tap, factor) in kernel_factors(frequency).into_iter().enumerate() {
        if factor == 0.0 {
            continue;
        }
        let row = w.row(tap, k0);
        if w.store == DType::F32 {
            add_scaled(isa(), &w.panel::<f32>(p, row)[..out.len()], factor, out);
        } else {
            unpack_rows(w, p, row, tap_rows.as_mut_slice::<f32>());
            add_scaled(isa(), tap_rows.as_slice(), factor, out);
        }
    }
}

simd_fn! {
    fn add_scaled(x: &[f32], factor: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += factor * x;
        }
    }
}

simd_fn! {
    /// A panel stored in pairs, as rows.
    fn unpair<E: Element>(x: &[bf16], nr: usize, y: &mut [E]) {
        for (x, y) in x.chunks_exact(2 * nr).zip(y.chunks_exact_mut(2 * nr)) {
            let (even, odd) = y.split_at_mut(nr);
            for ((x, even), odd) in x.chunks_exact(2).zip(even).zip(odd) {
                *even = E::from_f32(x[0].to_f32());
                *odd = E::from_f32(x[1].to_f32());
            }
        }
    }
}
