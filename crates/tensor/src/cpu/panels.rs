//! The right operand of a product: where the panels of B come from.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Buffer;
use super::elementwise::with_element;
use super::isa::{isa, simd_fn};
use super::math::{Element, mul_add};
use super::micro::Micro;
use super::operand::{Chunk, KC, Window, convert_slice};
use super::pack::Packed;
use super::transforms::{Frequency, Terms};
use super::transpose::{transpose, transpose_pairs};
use crate::dtype::DType;
use crate::stored::StoredWeight;
use crate::tensor::Tensor;

/// The panels of B.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    /// B = Wᵀ: k runs over the weight's inputs, n over its outputs.
    Packed(&'a Packed),
    /// B = Wᵀ, of a weight that was not packed.
    Stored(&'a StoredWeight),
    /// B = W: k runs over the weight's outputs, n over its inputs.
    Transposed(&'a Packed),
    /// One frequency of 3 × 3 kernels: k runs over their inputs, n over their outputs.
    Winograd(&'a Packed, Frequency),
    /// One frequency of 3 × 3 kernels flipped in both directions, for gradients: k runs over their outputs, n over their inputs.
    WinogradTransposed(&'a Packed, Frequency),
    /// Row-major (k, n).
    Matrix(&'a Tensor),
    /// The pixels of an image (B, H, W, n) at one kernel position: k runs over the window's rows.
    Image(&'a Tensor, Window, usize),
}

impl Panels<'_> {
    pub(super) fn dtype(&self) -> DType {
        match self {
            Panels::Packed(w) | Panels::Transposed(w) => w.store,
            Panels::Stored(w) => w.dtype,
            Panels::Winograd(_, frequency) | Panels::WinogradTransposed(_, frequency) => frequency.dtype,
            Panels::Matrix(x) | Panels::Image(x, ..) => x.dtype(),
        }
    }

    /// Whether panels are made by Winograd's transform of kernels.
    pub(super) fn are_frequencies(&self) -> bool {
        matches!(self, Panels::Winograd(..) | Panels::WinogradTransposed(..))
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
                let len = chunk.len.next_multiple_of(w.pair) * w.nr;
                transform_kernels(w, p, chunk.k0, frequency.terms(), &mut scratch[..len]);
            }
            Panels::WinogradTransposed(w, frequency) => {
                // Kernels in pairs of inputs become rows, of which `blocks` makes pairs of outputs.
                let mut pairs = Buffer::uninit(if M::PAIR == 1 { 0 } else { M::NR * w.nr * 2 });
                blocks::<M>(w, p, chunk, scratch, |q, first, block| {
                    if M::PAIR == 1 {
                        return transform_kernels(w, q, first, frequency.flipped(), block);
                    }
                    let pairs = &mut pairs.as_mut_slice::<bf16>()[..block.len()];
                    transform_kernels(w, q, first, frequency.flipped(), pairs);
                    unpair(isa(), pairs, w.nr, block);
                });
            }
            Panels::Stored(w) => stream::<M>(w, p, chunk, scratch),
            Panels::Transposed(w) => blocks::<M>(w, p, chunk, scratch, |q, first, block| {
                unpack_rows(w, q, w.row(chunk.tap, first), block);
            }),
            Panels::Matrix(x) => with_element!(x.dtype(), T => {
                let (x, n) = (x.elements::<T>(), x.last_dim());
                let columns = M::NR.min(n - p * M::NR);
                fill::<M, T>(scratch, chunk.len, |k| Some(&x[(chunk.k0 + k) * n + p * M::NR..][..columns]));
            }),
            Panels::Image(x, window, tap) => with_element!(x.dtype(), T => {
                let (x, n) = (x.elements::<T>(), x.last_dim());
                let columns = M::NR.min(n - p * M::NR);
                fill::<M, T>(scratch, chunk.len, |k| {
                    let pixel = window.pixel(window.position(chunk.k0 + k), *tap)?;
                    Some(&x[pixel * n + p * M::NR..][..columns])
                });
            }),
        }
        scratch.as_ptr()
    }
}

/// Fills a panel from its rows, with zeros where there is none, beyond their columns, and beyond `len`.
pub(super) fn fill<'a, M: Micro, T: Element>(
    panel: &mut [M::E],
    len: usize,
    row: impl Fn(usize) -> Option<&'a [T]>,
) {
    let pairs = panel.chunks_exact_mut(M::NR * M::PAIR).take(len.div_ceil(M::PAIR));
    for (k, out) in pairs.enumerate() {
        out.fill(M::E::from_f32(0.0));
        for i in 0..M::PAIR.min(len - k * M::PAIR) {
            if let Some(row) = row(k * M::PAIR + i) {
                spread(isa(), row, &mut out[i..], M::PAIR);
            }
        }
    }
}

simd_fn! {
    fn spread<X: Element, Y: Element>(x: &[X], y: &mut [Y], step: usize) {
        if step == 1 {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = Y::from_f32(x.to_f32()));
        } else {
            y.iter_mut().step_by(step).zip(x).for_each(|(y, x)| *y = Y::from_f32(x.to_f32()));
        }
    }
}

/// A panel of B = W out of the panels of Wᵀ: blocks of them, transposed. `fill` is given a panel of Wᵀ, its first row and
/// the block's rows.
fn blocks<M: Micro>(
    w: &Packed,
    p: usize,
    chunk: &Chunk,
    scratch: &mut [M::E],
    mut fill: impl FnMut(usize, usize, &mut [M::E]),
) {
    let first = p * M::NR;
    let columns = M::NR.min(w.inp - first);
    if columns < M::NR {
        scratch[..chunk.len.next_multiple_of(M::PAIR) * M::NR].fill(M::E::from_f32(0.0));
    }
    let mut block = Buffer::uninit(columns.next_multiple_of(w.pair) * w.nr * size_of::<M::E>());
    for k in (0..chunk.len).step_by(w.nr) {
        let outs = w.nr.min(chunk.len - k);
        fill((chunk.k0 + k) / w.nr, first, block.as_mut_slice::<M::E>());
        let out = &mut scratch[k * M::NR..];
        if M::PAIR == 1 {
            transpose(block.as_slice::<M::E>(), w.nr, [columns, outs], out, M::NR);
        } else {
            let size = [columns, outs.div_ceil(2)];
            let block: &[bf16] = bytemuck::cast_slice(block.as_slice::<M::E>());
            transpose_pairs(block, w.nr / 2, size, bytemuck::cast_slice_mut(out), M::NR);
        }
    }
}

/// A panel of B = Wᵀ out of the rows of W.
fn stream<M: Micro>(w: &StoredWeight, p: usize, chunk: &Chunk, scratch: &mut [M::E]) {
    let first = p * M::NR;
    let columns = M::NR.min(w.out - first);
    let padded = chunk.len.next_multiple_of(M::PAIR);
    if columns < M::NR || padded > chunk.len {
        scratch[..padded * M::NR].fill(M::E::from_f32(0.0));
    }
    let mut staged = Buffer::uninit(columns * KC * size_of::<M::E>());
    let staged = staged.as_mut_slice::<M::E>();
    let size = w.dtype.size();
    for j in 0..columns {
        let at = ((first + j) * w.inp + chunk.k0) * size;
        stage(&w.bytes()[at..at + chunk.len * size], w.dtype, &mut staged[j * KC..][..padded]);
    }
    if M::PAIR == 1 {
        transpose(staged, KC, [columns, chunk.len], scratch, M::NR);
    } else {
        let (x, y) = (bytemuck::cast_slice(staged), bytemuck::cast_slice_mut(scratch));
        transpose_pairs(x, KC / 2, [columns, padded / 2], y, M::NR);
    }
}

/// Elements of a file, at any alignment, as E. The rest of `out` becomes zero.
fn stage<E: Element>(bytes: &[u8], dtype: DType, out: &mut [E]) {
    let (out, rest) = out.split_at_mut(bytes.len() / dtype.size());
    rest.fill(E::from_f32(0.0));
    macro_rules! convert {
        ($T:ty, $to_f32:expr) => {
            for (bytes, out) in bytes.chunks_exact(size_of::<$T>()).zip(out) {
                *out = E::from_f32($to_f32(bytemuck::pod_read_unaligned::<$T>(bytes)));
            }
        };
    }
    match (dtype, bytemuck::try_cast_slice::<_, bf16>(bytes), bytemuck::try_cast_slice::<_, f16>(bytes)) {
        (DType::BF16, Ok(x), _) => convert_slice(isa(), x, out),
        (DType::F16, _, Ok(x)) if E::DTYPE == DType::F32 => {
            x.convert_to_f32_slice(bytemuck::cast_slice_mut(out));
        }
        (DType::F32, ..) => convert!(f32, |x| x),
        (DType::BF16, ..) => convert!(bf16, bf16::to_f32),
        (DType::F16, ..) => convert!(f16, f16::to_f32),
    }
}

/// Rows of a panel from `row` on, converted from the stored dtype to E.
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

/// One frequency of a panel's 3 × 3 kernels, for the channels from `k0` on: the sum of their positions, each times its factor. In
/// bf16 its elements lie in pairs, as those of the panel do.
fn transform_kernels<E: Element>(
    w: &Packed,
    p: usize,
    k0: usize,
    terms: impl Iterator<Item = Terms>,
    out: &mut [E],
) {
    match E::DTYPE {
        DType::BF16 => sum_in_bf16(w, p, k0, terms, bytemuck::cast_slice_mut(out)),
        _ => sum_in_f32(w, p, k0, terms, bytemuck::cast_slice_mut(out)),
    }
}

fn sum_in_bf16(w: &Packed, p: usize, k0: usize, terms: impl Iterator<Item = Terms>, out: &mut [bf16]) {
    assert_eq!((w.store, w.pair), (DType::BF16, 2), "kernels that are summed in bf16");
    let (mut rows, mut factors, mut count) = ([&[][..]; 9], [0.0; 9], 0);
    for (tap, factor) in terms.flatten().filter(|(_, factor)| *factor != 0.0) {
        rows[count] = &w.panel::<bf16>(p, w.row(tap, k0))[..out.len()];
        factors[count] = factor;
        count += 1;
    }
    weighted_sum(isa(), &rows[..count], &factors[..count], out);
}

fn sum_in_f32(w: &Packed, p: usize, k0: usize, terms: impl Iterator<Item = Terms>, out: &mut [f32]) {
    out.fill(0.0);
    let len = out.len();
    for terms in terms {
        let (rows, factors) = (terms.map(|(tap, _)| w.row(tap, k0)), terms.map(|(_, factor)| factor));
        match w.store {
            DType::F32 => add_three(isa(), rows.map(|row| &w.panel::<f32>(p, row)[..len]), factors, out),
            DType::BF16 if w.pair == 1 => {
                add_three(isa(), rows.map(|row| &w.panel::<bf16>(p, row)[..len]), factors, out);
            }
            _ => {
                let mut staged = Buffer::uninit(3 * len * 4);
                let staged = staged.as_mut_slice::<f32>();
                rows.iter().zip(staged.chunks_mut(len)).for_each(|(row, out)| unpack_rows(w, p, *row, out));
                add_three(isa(), [0, 1, 2].map(|i| &staged[i * len..][..len]), factors, out);
            }
        }
    }
}

simd_fn! {
    /// y = Σ factor · x, of whole registers, summed in f32.
    fn weighted_sum[FMA](x: &[&[bf16]], factors: &[f32], y: &mut [bf16]) {
        const REGISTERS: usize = 32;
        for (i, y) in y.chunks_exact_mut(REGISTERS).enumerate() {
            let mut sums = [0.0; REGISTERS];
            for (x, factor) in x.iter().zip(factors) {
                let x = &x[i * REGISTERS..][..REGISTERS];
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = mul_add::<FMA>(*factor, Element::to_f32(*x), *sum);
                }
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = Element::from_f32(sum));
        }
    }
}

simd_fn! {
    /// y += Σ factor · x
    fn add_three[FMA]<T: Element>(x: [&[T]; 3], factors: [f32; 3], y: &mut [f32]) {
        let [a, b, c] = x;
        for (((y, a), b), c) in y.iter_mut().zip(a).zip(b).zip(c) {
            let sum = mul_add::<FMA>(factors[0], a.to_f32(), *y);
            let sum = mul_add::<FMA>(factors[1], b.to_f32(), sum);
            *y = mul_add::<FMA>(factors[2], c.to_f32(), sum);
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
