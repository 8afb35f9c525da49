//! Weights of linear and convolution layers, in the kernels' layout.

use std::sync::{Arc, OnceLock};

use crate::cpu::layout::interleave;
use crate::cpu::pack::Packed;
use crate::cpu::panels::Panels;
use crate::{DType, LeafId, Tensor};

/// A weight's row-major elements where they lie already: in a mapped file, say.
pub trait WeightBytes: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
    /// Told when they have been copied and will not be read again soon.
    fn release(&self) {}
}

/// The weight of a linear layer (out, in) or of a convolution (O, I, kh, kw). Cloning shares the memory.
#[derive(Clone)]
pub struct Weight {
    layout: Arc<Layout>,
    /// Height and width of a convolution's kernel; [1, 1] for a linear layer.
    pub(crate) kernel: [usize; 2],
    out: usize,
    inp: usize,
    /// What a gradient flows back into, if anything: a tensor, or what stands for the panels themselves.
    pub(crate) source: Option<Tensor>,
}

/// How the elements lie: in the kernels' panels and, until they do, as they were given.
struct Layout {
    packed: OnceLock<Packed>,
    rows: Option<Arc<Rows>>,
    /// What panels hold.
    store: DType,
    /// Whether products read the rows, which come into panels in the cache alone.
    streamed: bool,
}

/// Elements (out, in, taps) of a file.
pub(crate) struct Rows {
    bytes: Box<dyn WeightBytes>,
    pub(crate) dtype: DType,
    pub(crate) out: usize,
    pub(crate) inp: usize,
    taps: usize,
}

impl Rows {
    /// Row-major elements, as [`Rows::dtype`] says.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    fn pack(&self, store: DType) -> Packed {
        let packed = Packed::new(self.bytes(), self.dtype, self.out, self.inp, self.taps, store);
        self.bytes.release();
        packed
    }
}

/// That these are the bytes of a weight (O, I, kh, kw).
#[track_caller]
fn check_bytes(bytes: &[u8], dtype: DType, shape: [usize; 4]) {
    let expected = shape.iter().try_fold(dtype.size(), |bytes, &n| bytes.checked_mul(n));
    let expected = expected
        .unwrap_or_else(|| panic!("a weight {shape:?} in {dtype}: expected at most {} bytes", usize::MAX));
    assert!(
        bytes.len() == expected,
        "bytes of a weight {shape:?} in {dtype}: expected {expected}, found {}",
        bytes.len()
    );
}

impl Weight {
    /// Packs a row-major (out, in) matrix, given as the bytes of a file, to be stored as `store`.
    ///
    /// # Panics
    /// If the shape has another number of bytes, as all constructors do.
    pub fn linear(src: &[u8], src_dtype: DType, out: usize, inp: usize, store: DType) -> Weight {
        Self::conv(src, src_dtype, [out, inp, 1, 1], store)
    }

    /// Packs a (O, I, kh, kw) convolution weight, given as the bytes of a file.
    pub fn conv(src: &[u8], src_dtype: DType, shape: [usize; 4], store: DType) -> Weight {
        let [out, inp, kh, kw] = shape;
        check_bytes(src, src_dtype, shape);
        let packed = Packed::new(src, src_dtype, out, inp, kh * kw, store);
        let layout = Layout { packed: OnceLock::from(packed), rows: None, store, streamed: false };
        Self::new(layout, shape)
    }

    /// A weight (O, I, kh, kw), or (O, I, 1, 1) of a linear layer, that is packed at first use.
    pub fn lazy(bytes: Box<dyn WeightBytes>, dtype: DType, shape: [usize; 4], store: DType) -> Weight {
        let rows = Some(Arc::new(Self::rows(bytes, dtype, shape)));
        Self::new(Layout { packed: OnceLock::new(), rows, store, streamed: false }, shape)
    }

    /// A matrix (out, in) for a layer that is used once or twice: not packed, unless for a gradient.
    pub fn streamed(bytes: Box<dyn WeightBytes>, dtype: DType, out: usize, inp: usize) -> Weight {
        let shape = [out, inp, 1, 1];
        let rows = Some(Arc::new(Self::rows(bytes, dtype, shape)));
        Self::new(Layout { packed: OnceLock::new(), rows, store: dtype, streamed: true }, shape)
    }

    fn rows(bytes: Box<dyn WeightBytes>, dtype: DType, shape: [usize; 4]) -> Rows {
        check_bytes(bytes.bytes(), dtype, shape);
        let [out, inp, kh, kw] = shape;
        Rows { bytes, dtype, out, inp, taps: kh * kw }
    }

    fn new(layout: Layout, [out, inp, kh, kw]: [usize; 4]) -> Weight {
        Weight { layout: Arc::new(layout), kernel: [kh, kw], out, inp, source: None }
    }

    /// Packs a tensor (out, in) or (O, I, kh, kw); where it requires a gradient, one flows back into it.
    ///
    /// # Panics
    /// If the tensor has another number of dimensions.
    pub fn from_tensor(w: &Tensor) -> Weight {
        let shape = match *w.shape() {
            [out, inp] => [out, inp, 1, 1],
            [out, inp, kh, kw] => [out, inp, kh, kw],
            _ => panic!("shape of a weight: expected (out, in) or (O, I, kh, kw), found {:?}", w.shape()),
        };
        let bytes: &[u8] = match w.dtype() {
            DType::F32 => bytemuck::cast_slice(w.f32s()),
            _ => bytemuck::cast_slice(w.bf16s()),
        };
        let source = w.requires_grad().then(|| w.clone());
        Weight { source, ..Self::conv(bytes, w.dtype(), shape, w.dtype()) }
    }

    /// Outputs of the layer.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Inputs of the layer (channels, for a convolution).
    pub fn inp(&self) -> usize {
        self.inp
    }

    /// Positions of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The weight in panels, packed now if it was not yet.
    pub(crate) fn packed(&self) -> &Packed {
        let Layout { packed, rows, store, .. } = &*self.layout;
        if let Some(packed) = packed.get() {
            return packed;
        }
        // Not inside of the cell: packing is a parallel loop, in which this thread may take up another request's work, which
        // may want this very weight. Where two threads pack it, the first one's panels are kept.
        let new = rows.as_ref().expect("what is not packed yet has its rows").pack(*store);
        packed.get_or_init(|| new)
    }

    /// B = Wᵀ of a product.
    pub(crate) fn panels(&self) -> Panels<'_> {
        match &self.layout.rows {
            Some(rows) if self.layout.streamed => Panels::Rows(rows),
            _ => Panels::Packed(self.packed()),
        }
    }

    /// The same weight as a new leaf that requires a gradient, which is (O, I, kh, kw), f32. Its panels are f32, packed from
    /// the elements as they were given: they are the only copy of what trains.
    ///
    /// # Panics
    /// If the weight was packed at once, and not in f32: its elements as they were given are gone.
    pub fn var(mut self) -> Weight {
        if let Some(rows) = &self.layout.rows
            && (self.layout.store != DType::F32 || self.layout.streamed)
        {
            let rows = Some(rows.clone());
            let layout = Layout { packed: OnceLock::new(), rows, store: DType::F32, streamed: false };
            self.layout = Arc::new(layout);
        }
        assert_eq!(self.layout.store, DType::F32, "dtype of the panels of a weight that trains");
        Weight { source: Some(Tensor::stand_in(&self.shape())), ..self }
    }

    /// The same weight, cut off from the tape.
    pub fn detach(&self) -> Weight {
        Weight { source: None, ..self.clone() }
    }

    /// The leaf's name, None where the weight requires no gradient.
    pub fn leaf_id(&self) -> Option<LeafId> {
        self.source.as_ref()?.leaf_id()
    }

    /// (O, I, kh, kw); kh and kw are 1 in a linear layer.
    pub fn shape(&self) -> [usize; 4] {
        [self.out, self.inp, self.kernel[0], self.kernel[1]]
    }

    /// A copy of the elements of a weight that [trains](Self::var), (O, I, kh, kw).
    pub fn values(&self) -> Tensor {
        Tensor::new(self.packed().values(), &self.shape(), DType::F32)
    }

    /// Gives other elements to a weight that [trains](Self::var).
    pub fn set_values(&mut self, values: &[f32]) {
        let new = Self::conv(bytemuck::cast_slice(values), DType::F32, self.shape(), DType::F32);
        self.layout = new.layout;
    }

    /// Takes an optimizer's step: each element w of a weight that [trains](Self::var) becomes w · keep − factor · d, where the
    /// direction's d are row-major. In place, unless other clones are alive, which keep what they have.
    pub fn step(&mut self, keep: f32, factor: f32, direction: &[f32]) {
        self.packed();
        if Arc::get_mut(&mut self.layout).is_none() {
            self.set_values(self.values().f32s());
        }
        let layout = Arc::get_mut(&mut self.layout).expect("no other clone has it");
        layout.rows = None;
        layout.packed.get_mut().expect("packed above").step(keep, factor, direction);
    }

    /// Gives the gradient `dw` ((kh · kw) matrices (out, in), f32) the shape of the source.
    pub(crate) fn gradient(&self, dw: &[Tensor]) -> Tensor {
        let source = self.source.as_ref().expect("only a trainable weight has a gradient");
        let whole = match dw {
            [dw] => dw.clone(),
            taps => interleave(taps),
        };
        whole.reshape(source.shape()).to_dtype(source.dtype())
    }
}
