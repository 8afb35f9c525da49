//! The left operand of a product: where the rows of A come from.

use half::bf16;
use rayon::prelude::*;

use super::Buffer;
use super::elementwise::with_element;
use super::isa::{isa, simd_fn};
use super::math::Element;
use super::micro::Micro;
use super::transpose::transpose;
use crate::backend::ConvShape;
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Depth of a chunk: a panel of it is 20 KiB, and SDXL's widths are multiples of it.
pub(super) const KC: usize = 320;

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
    pub(crate) pad: [usize; 2],
    /// False: row (y, x) reads (y · stride + ky − pad, …), a convolution. True: it reads the pixels whose
    /// window holds it, (y + pad − ky) / stride, the gradient of one.
    pub(crate) transposed: bool,
}

impl Window {
    /// That of a convolution over x.
    pub(crate) fn forward(s: ConvShape) -> Window {
        Window {
            size: s.input,
            rows: s.output,
            kernel: s.kernel,
            stride: s.stride,
            pad: s.pad,
            transposed: false,
        }
    }

    /// That of its gradient over dy.
    pub(crate) fn backward(s: ConvShape) -> Window {
        Window { size: s.output, rows: s.input, transposed: true, ..Self::forward(s) }
    }

    /// Where along one axis (0: down, 1: to the right) row `at` reads for kernel position `tap`.
    fn source(&self, at: usize, tap: usize, axis: usize) -> Option<usize> {
        let (size, pad) = (self.size[axis], self.pad[axis]);
        let from = if self.transposed {
            let shifted = (at + pad).checked_sub(tap)?;
            shifted.is_multiple_of(self.stride).then_some(shifted / self.stride)?
        } else {
            (at * self.stride + tap).checked_sub(pad)?
        };
        (from < size).then_some(from)
    }

    /// The pixel that row `row` reads for kernel position `tap`; None in the padding.
    pub(super) fn pixel(&self, row: [usize; 3], tap: usize) -> Option<usize> {
        let [image, y, x] = row;
        let y = self.source(y, tap / self.kernel[1], 0)?;
        let x = self.source(x, tap % self.kernel[1], 1)?;
        Some((image * self.size[0] + y) * self.size[1] + x)
    }

    /// Image, y and x of a row.
    pub(super) fn position(&self, row: usize) -> [usize; 3] {
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

    /// Rows whole pages apart fall into the same few lines of the cache, and push each other out.
    fn is_aliased<M: Micro>(&self) -> bool {
        (self.tensor().last_dim() * size_of::<M::E>()).is_multiple_of(4096)
    }

    /// A copy of the `m` rows with more space between them, if each of `readers` would otherwise have to copy them. `None`: the rows
    /// can be read where they are.
    pub(super) fn spaced<M: Micro>(&self, m: usize, readers: usize) -> Option<Tensor> {
        let Rows::Matrix(x) = self else { return None };
        let pays = m > M::MR && readers > 1 && x.dtype() == M::E::DTYPE && self.is_aliased::<M>();
        pays.then(|| with_element!(x.dtype(), T => space::<T>(x)))
    }

    /// Prepares to read `count` rows from `m0` on.
    pub(super) fn gather<M: Micro>(&self, m0: usize, count: usize) -> Gathered<'a, M> {
        let padded = count.next_multiple_of(M::MR);
        let odd = !self.tensor().last_dim().is_multiple_of(M::PAIR);
        let aliased = count > M::MR && self.is_aliased::<M>();
        let copies = self.dtype() != M::E::DTYPE || odd || aliased || matches!(self, Rows::Transposed(_));
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
        let x = &x.elements::<T>()[chunk.k0 * width + self.m0..];
        transpose(x, width, [chunk.len, self.count], scratch, KC);
        for (r, pointer) in self.pointers.iter_mut().enumerate().take(self.count) {
            if !chunk.len.is_multiple_of(M::PAIR) {
                scratch[r * KC + chunk.len] = M::E::from_f32(0.0);
            }
            *pointer = scratch[r * KC..].as_ptr();
        }
    }
}

/// A copy of the rows of x. A cache line of arbitrary values follows each row.
fn space<T: Element>(x: &Tensor) -> Tensor {
    let (width, apart) = (x.last_dim(), x.last_dim() + 64 / size_of::<T>());
    let rows = x.numel() / width;
    let mut out = Buffer::uninit(rows * apart * size_of::<T>());
    let spaced = out.as_mut_slice::<T>().par_chunks_mut(apart);
    spaced.zip(x.elements::<T>().par_chunks(width)).for_each(|(to, from)| to[..width].copy_from_slice(from));
    Tensor::new(out, &[rows, apart], x.dtype())
}

simd_fn! {
    pub(super) fn convert_slice<X: Element, Y: Element>(x: &[X], y: &mut [Y]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(x.to_f32());
        }
    }
}

/// Zeros that rows outside an image point to.
pub(super) static ZEROS: [f32; KC] = [0.0; KC];

/// The zero row as elements of type E.
pub(super) fn zero_row<E: Element>() -> *const E {
    const { assert!(size_of::<bf16>() <= size_of::<f32>()) };
    ZEROS.as_ptr().cast()
}
