//! Weights in the kernels' layout.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Buffer;
use super::isa::{Isa, isa};
use super::math::Element;
use crate::dtype::DType;

/// A matrix B (k, n), given as the weight (n, k), in panels of `nr` columns: `[panel][k][nr]`, padded with
/// zeros to whole panels; with `pair` 2, `[panel][k / 2][nr][2]`.
///
/// A convolution's k runs over `taps` (kh · kw) times `inp` channels, each tap's channels padded to `pair`.
pub(crate) struct Packed {
    data: Buffer,
    pub(crate) store: DType,
    pub(crate) out: usize,
    pub(crate) inp: usize,
    pub(crate) taps: usize,
    pub(super) nr: usize,
    pub(super) pair: usize,
}

/// Panel width of this CPU's kernels.
pub(super) fn panel_width(isa: Isa) -> usize {
    match isa {
        Isa::Emulated | Isa::Avx512 | Isa::Avx512Bf16 => 32,
        Isa::Portable | Isa::Neon | Isa::Avx2 => 16,
    }
}

/// A stored element.
trait Stored: bytemuck::Pod + Send + Sync {
    const DTYPE: DType;
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
    /// [`Self::widen`] of many.
    fn widen_all(from: &[Self], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
    }
}

impl Stored for f32 {
    const DTYPE: DType = DType::F32;
    fn widen(self) -> f32 {
        self
    }
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Stored for bf16 {
    const DTYPE: DType = DType::BF16;
    fn widen(self) -> f32 {
        Element::to_f32(self)
    }
    fn narrow(x: f32) -> bf16 {
        Element::from_f32(x)
    }
}

impl Stored for f16 {
    const DTYPE: DType = DType::F16;
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn widen_all(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
}

/// The bytes of a file as elements of another type: where they lie, if that is possible, else in `staged`.
fn values<'a, S: Stored, D: Stored>(bytes: &'a [u8], staged: &'a mut [f32]) -> &'a [D] {
    if S::DTYPE == D::DTYPE
        && let Ok(values) = bytemuck::try_cast_slice(bytes)
    {
        return values;
    }
    let staged = &mut bytemuck::cast_slice_mut(staged)[..bytes.len() / size_of::<S>()];
    if S::DTYPE == D::DTYPE {
        bytemuck::cast_slice_mut(staged).copy_from_slice(bytes);
        return staged;
    }
    const PIECE: usize = 64;
    let (mut narrow, mut wide) = ([S::zeroed(); PIECE], [0.0; PIECE]);
    for (out, bytes) in staged.chunks_mut(PIECE).zip(bytes.chunks(PIECE * size_of::<S>())) {
        let count = out.len();
        bytemuck::cast_slice_mut(&mut narrow[..count]).copy_from_slice(bytes);
        S::widen_all(&narrow[..count], &mut wide[..count]);
        out.iter_mut().zip(&wide).for_each(|(out, wide)| *out = D::narrow(*wide));
    }
    staged
}

/// Runs `$body` with `$T` standing for the type of a stored element: `with_stored!(dtype, T => f::<T>())` stands for
/// ```ignore
/// match dtype {
///     DType::F32 => { type T = f32; f::<T>() }
///     DType::BF16 => { type T = bf16; f::<T>() }
///     DType::F16 => { type T = f16; f::<T>() }
/// }
/// ```
macro_rules! with_stored {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
        }
    };
}

impl Packed {
    /// Packs (out, inp, taps) row-major elements of type `src_dtype`.
    pub(crate) fn new(
        src: &[u8],
        src_dtype: DType,
        out: usize,
        inp: usize,
        taps: usize,
        store: DType,
    ) -> Packed {
        assert_eq!(
            src.len(),
            out * inp * taps * src_dtype.size(),
            "bytes of a ({out}, {inp}, {taps}) weight"
        );
        let nr = panel_width(isa());
        let pair = if store == DType::BF16 && isa().has_bf16() { 2 } else { 1 };
        let panels = out.div_ceil(nr);
        let rows = taps * inp.next_multiple_of(pair);
        let mut data = Buffer::exact(panels * rows * nr * store.size());
        let mut packed = Packed { data: Buffer::exact(0), store, out, inp, taps, nr, pair };
        with_stored!(store, D => {
            let panels = data.as_mut_slice::<D>().par_chunks_mut((rows * nr).max(1));
            panels.enumerate().for_each(|(p, panel)| {
                with_stored!(src_dtype, S => packed.pack_panel::<S, D>(src, p, panel))
            });
        });
        packed.data = data;
        packed
    }

    /// k of the whole panel: taps times padded channels.
    pub(super) fn rows(&self) -> usize {
        self.taps * self.inp.next_multiple_of(self.pair)
    }

    /// The row of a panel that holds channel `k` of tap `tap`.
    pub(super) fn row(&self, tap: usize, k: usize) -> usize {
        tap * self.inp.next_multiple_of(self.pair) + k
    }

    #[cfg(test)]
    /// Index in a panel of row `k` of tap `tap`, column `j`.
    fn at(&self, tap: usize, k: usize, j: usize) -> usize {
        let row = self.row(tap, k);
        (row / self.pair * self.nr + j) * self.pair + row % self.pair
    }

    fn pack_panel<S: Stored, D: Stored>(&self, src: &[u8], p: usize, panel: &mut [D]) {
        match self.pair {
            1 => self.pack_pairs::<S, D, 1>(src, p, panel),
            _ => self.pack_pairs::<S, D, 2>(src, p, panel),
        }
    }

    fn pack_pairs<S: Stored, D: Stored, const PAIR: usize>(&self, src: &[u8], p: usize, panel: &mut [D]) {
        /// Elements that are packed at a time: so few that the packed elements stay in the first-level cache.
        const BLOCK: usize = 256;
        let size = size_of::<S>();
        let columns = self.nr.min(self.out - p * self.nr);
        let channels = (BLOCK / self.taps).max(1).next_multiple_of(PAIR);
        let mut staged = vec![0.0f32; channels * self.taps]; // room for any element, and aligned for pairs of them
        for k0 in (0..self.inp).step_by(channels) {
            let end = (k0 + channels).min(self.inp);
            for j in 0..columns {
                let row = (p * self.nr + j) * self.inp;
                let bytes = &src[(row + k0) * self.taps * size..(row + end) * self.taps * size];
                let values = values::<S, D>(bytes, &mut staged);
                if self.taps > 1 || PAIR > 1 {
                    self.scatter_taps::<D, PAIR>(values, k0, j, panel);
                } else {
                    let rows = panel[k0 * self.nr..end * self.nr].chunks_exact_mut(self.nr);
                    rows.zip(values).for_each(|(row, value)| row[j] = *value);
                }
            }
        }
    }

    /// Writes column `j` of the channels from `k0` on, all their taps.
    fn scatter_taps<D: Stored, const PAIR: usize>(&self, values: &[D], k0: usize, j: usize, panel: &mut [D]) {
        let padded = self.inp.next_multiple_of(PAIR);
        for (i, taps) in values.chunks_exact(self.taps).enumerate() {
            for (tap, value) in taps.iter().enumerate() {
                let row = tap * padded + k0 + i;
                panel[(row / PAIR * self.nr + j) * PAIR + row % PAIR] = *value;
            }
        }
    }

    /// The elements of f32 panels, row-major (out, inp, taps).
    pub(crate) fn values(&self) -> Buffer {
        let mut out = Buffer::uninit(self.out * self.inp * self.taps * 4);
        let row = self.inp * self.taps;
        let rows = out.as_mut_slice::<f32>().par_chunks_mut((self.nr * row).max(1));
        rows.enumerate().for_each(|(p, rows)| {
            let panel = self.panel::<f32>(p, 0);
            self.walk(p, |at, i| rows[i] = panel[at]);
        });
        out
    }

    /// Each element w of f32 panels becomes w · keep − factor · d; the direction is row-major (out, inp, taps).
    pub(crate) fn step(&mut self, keep: f32, factor: f32, direction: &[f32]) {
        assert_eq!(direction.len(), self.out * self.inp * self.taps, "a step for each element");
        let mut data = std::mem::replace(&mut self.data, Buffer::exact(0));
        assert_eq!(self.store, DType::F32, "panels that train");
        let panels = data.as_mut_slice::<f32>().par_chunks_mut((self.rows() * self.nr).max(1));
        let rows = direction.par_chunks((self.nr * self.inp * self.taps).max(1));
        panels.zip(rows).enumerate().for_each(|(p, (panel, rows))| {
            self.walk(p, |at, i| panel[at] = panel[at] * keep - factor * rows[i]);
        });
        self.data = data;
    }

    /// Calls `visit` for each element of panel `p` of f32: where it is in the panel, and where in the panel's rows of (out, inp, taps).
    fn walk(&self, p: usize, mut visit: impl FnMut(usize, usize)) {
        /// Channels at a time: a block of the panel stays in the first-level cache while its columns pass by.
        const BLOCK: usize = 64;
        let columns = self.nr.min(self.out - p * self.nr);
        let channels = (BLOCK / self.taps).max(1);
        for k0 in (0..self.inp).step_by(channels) {
            let end = (k0 + channels).min(self.inp);
            for j in 0..columns {
                for k in k0..end {
                    for tap in 0..self.taps {
                        visit((tap * self.inp + k) * self.nr + j, (j * self.inp + k) * self.taps + tap);
                    }
                }
            }
        }
    }

    /// The rows of panel `p` from `row` on, as stored.
    pub(super) fn panel<T: bytemuck::AnyBitPattern>(&self, p: usize, row: usize) -> &[T] {
        assert_eq!(size_of::<T>(), self.store.size());
        let len = self.rows() * self.nr;
        &self.data.as_slice::<T>()[p * len + row * self.nr..(p + 1) * len]
    }

    #[cfg(test)]
    /// One element as f32: output channel `o`, input channel `k`, tap `tap`.
    fn get(&self, o: usize, k: usize, tap: usize) -> f32 {
        let (p, at) = (o / self.nr, self.at(tap, k, o % self.nr));
        with_stored!(self.store, T => self.panel::<T>(p, 0)[at].widen())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element is found again, for sizes that do not fill panels, from any file dtype.
    #[test]
    fn packs_every_element() {
        let (out, inp, taps) = (37, 70, 9);
        let values: Vec<f32> = (0..out * inp * taps).map(|i| (i % 251) as f32 - 125.0).collect();
        let bf: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
        let sources: [(&[u8], DType); 2] =
            [(bytemuck::cast_slice(&values), DType::F32), (bytemuck::cast_slice(&bf), DType::BF16)];
        for (src, dtype) in sources {
            for store in [DType::F32, DType::BF16, DType::F16] {
                let packed = Packed::new(src, dtype, out, inp, taps, store);
                for (i, &value) in values.iter().enumerate() {
                    let (o, k, tap) = (i / (inp * taps), i / taps % inp, i % taps);
                    assert_eq!(packed.get(o, k, tap), value);
                }
            }
        }
    }

    /// Protects training in place: every element takes its own step, and comes back where it was, for sizes that do not fill panels.
    #[test]
    fn steps_every_element() {
        for (out, inp, taps) in [(37, 70, 9), (5, 129, 1), (32, 64, 1)] {
            let values: Vec<f32> = (0..out * inp * taps).map(|i| i as f32).collect();
            let mut packed =
                Packed::new(bytemuck::cast_slice(&values), DType::F32, out, inp, taps, DType::F32);
            assert_eq!(packed.values().as_slice::<f32>(), values);
            let step: Vec<f32> = values.iter().map(|x| x / 8.0 + 0.5).collect();
            packed.step(0.5, 2.0, &step);
            let stepped: Vec<f32> = values.iter().map(|x| x / 4.0 - 1.0).collect();
            assert_eq!(packed.values().as_slice::<f32>(), stepped);
            assert_eq!(packed.get(out - 1, inp - 1, taps - 1), stepped[out * inp * taps - 1]);
        }
    }
}
