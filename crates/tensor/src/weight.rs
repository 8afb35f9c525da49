//! Weights of linear and convolution layers, in the kernels' layout.

use std::sync::{Arc, OnceLock};

use crate::backend::Matrix;
use crate::dtype::DType;
use crate::memory::Device;
use crate::memory::Packed;
use crate::node::LeafId;
use crate::node::Node;
use crate::stored::StoredWeight;
use crate::stored::WeightBytes;
use crate::tensor::Tensor;

/// The weight of a linear layer (out, in) or of a convolution (O, I, kh, kw). Cloning shares the memory.
#[derive(Clone)]
pub struct Weight {
    elements: Arc<Elements>,
    /// (O, I, kh, kw); kh and kw are 1 in a linear layer.
    shape: [usize; 4],
    device: Device,
    source: Option<Source>,
}

/// How the elements lie.
enum Elements {
    /// In the kernels' layout.
    Packed(Packed),
    /// As a file has them, and in the kernels' layout from the first use on.
    Lazy { stored: Arc<StoredWeight>, store: DType, packed: OnceLock<Packed> },
    /// As a file has them, where products read them; in the kernels' layout too once a gradient needs that.
    Streamed { stored: Arc<StoredWeight>, packed: OnceLock<Packed> },
}

/// The elements of a weight on the meta device.
struct NoBytes;

impl WeightBytes for NoBytes {
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

/// What a gradient flows back into: a leaf for the elements themselves, or the tensor that was packed.
#[derive(Clone)]
struct Source {
    node: Arc<Node<Tensor>>,
    /// Of the gradient.
    shape: Vec<usize>,
    dtype: DType,
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
    /// Packs a weight (O, I, kh, kw), or (O, I, 1, 1) of a linear layer, given as the bytes of a file, to be stored as `store`
    /// on a device.
    ///
    /// # Panics
    /// If the shape has another number of bytes, as all constructors do.
    pub fn new(src: &[u8], src_dtype: DType, shape: [usize; 4], store: DType, device: Device) -> Weight {
        check_bytes(src, src_dtype, shape);
        let packed = device.kernels().pack(src, src_dtype, matrix_shape(shape), store);
        Self::of(Elements::Packed(packed), shape, device)
    }

    /// A weight as [`new`](Self::new) makes it, but packed at first use.
    pub fn lazy(
        bytes: Box<dyn WeightBytes>,
        dtype: DType,
        shape: [usize; 4],
        store: DType,
        device: Device,
    ) -> Weight {
        let stored = Self::stored(bytes, dtype, shape);
        Self::of(Elements::Lazy { stored, store, packed: OnceLock::new() }, shape, device)
    }

    /// A matrix (out, in) for a layer that is used once or twice: not packed, unless for a gradient.
    pub fn streamed(
        bytes: Box<dyn WeightBytes>,
        dtype: DType,
        [out, inp]: [usize; 2],
        device: Device,
    ) -> Weight {
        let shape = [out, inp, 1, 1];
        let stored = Self::stored(bytes, dtype, shape);
        Self::of(Elements::Streamed { stored, packed: OnceLock::new() }, shape, device)
    }

    /// A weight (O, I, kh, kw), or (O, I, 1, 1) of a linear layer, without elements, on [`Device::Meta`]. `store` is the dtype
    /// that they would be packed in.
    pub fn meta(shape: [usize; 4], store: DType) -> Weight {
        let [out, inp, taps] = matrix_shape(shape);
        let stored = Arc::new(StoredWeight { bytes: Box::new(NoBytes), dtype: store, out, inp, taps });
        let elements = Elements::Lazy { stored, store, packed: OnceLock::new() };
        Self::of(elements, shape, Device::Meta)
    }

    fn stored(bytes: Box<dyn WeightBytes>, dtype: DType, shape: [usize; 4]) -> Arc<StoredWeight> {
        check_bytes(bytes.bytes(), dtype, shape);
        let [out, inp, taps] = matrix_shape(shape);
        Arc::new(StoredWeight { bytes, dtype, out, inp, taps })
    }

    fn of(elements: Elements, shape: [usize; 4], device: Device) -> Weight {
        Weight { elements: Arc::new(elements), shape, device, source: None }
    }

    /// Packs a tensor (out, in) or (O, I, kh, kw), on its device; where it requires a gradient, one flows back into it.
    ///
    /// # Panics
    /// If the tensor has another number of dimensions.
    pub fn from_tensor(w: &Tensor) -> Weight {
        let shape = match *w.shape() {
            [out, inp] => [out, inp, 1, 1],
            [out, inp, kh, kw] => [out, inp, kh, kw],
            _ => panic!("shape of a weight: expected (out, in) or (O, I, kh, kw), found {:?}", w.shape()),
        };
        let source =
            w.node().cloned().map(|node| Source { node, shape: w.shape().to_vec(), dtype: w.dtype() });
        let elements = Elements::Packed(w.kernels().pack_tensor(w));
        Weight { source, ..Self::of(elements, shape, w.device()) }
    }

    /// Outputs of the layer.
    pub fn out(&self) -> usize {
        self.shape[0]
    }

    /// Inputs of the layer (channels, for a convolution).
    pub fn inp(&self) -> usize {
        self.shape[1]
    }

    /// (O, I, kh, kw); kh and kw are 1 in a linear layer.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Where the weight lies.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Height and width of a convolution's kernel; [1, 1] for a linear layer.
    pub(crate) fn kernel(&self) -> [usize; 2] {
        [self.shape[2], self.shape[3]]
    }

    /// The elements in the kernels' layout, packed now if they were not yet.
    pub(crate) fn packed(&self) -> &Packed {
        let (stored, store, packed) = match &*self.elements {
            Elements::Packed(packed) => return packed,
            Elements::Lazy { stored, store, packed } => (stored, *store, packed),
            Elements::Streamed { stored, packed } => (stored, stored.dtype, packed),
        };
        if let Some(packed) = packed.get() {
            return packed;
        }
        // Not inside of the cell: packing is a parallel loop, in which this thread may take up another request's work, which
        // may want this very weight. Where two threads pack it, the first one's panels are kept.
        let shape = [stored.out, stored.inp, stored.taps];
        let new = self.device.kernels().pack(stored.bytes(), stored.dtype, shape, store);
        stored.bytes.release();
        packed.get_or_init(|| new)
    }

    /// The elements as a product with them reads them.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        match &*self.elements {
            Elements::Streamed { stored, .. } => Matrix::Stored(stored),
            Elements::Packed(_) | Elements::Lazy { .. } => Matrix::Packed(self.packed()),
        }
    }

    /// The same weight as a new leaf that requires a gradient, which is (O, I, kh, kw), f32. Its elements are f32, packed from
    /// those of the file: they are the only copy of what trains.
    ///
    /// # Panics
    /// If the weight was packed at once, and not in f32: its elements as they were given are gone.
    pub fn var(self) -> Weight {
        let elements = match &*self.elements {
            Elements::Packed(packed) => {
                assert_eq!(packed.store(), DType::F32, "dtype of the panels of a weight that trains");
                self.elements
            }
            Elements::Lazy { store: DType::F32, .. } => self.elements,
            Elements::Lazy { stored, .. } | Elements::Streamed { stored, .. } => Arc::new(Elements::Lazy {
                stored: stored.clone(),
                store: DType::F32,
                packed: OnceLock::new(),
            }),
        };
        let source = Source { node: Node::leaf(), shape: self.shape.to_vec(), dtype: DType::F32 };
        Weight { elements, source: Some(source), ..self }
    }

    /// The same weight, cut off from the tape.
    pub fn detach(&self) -> Weight {
        Weight { source: None, ..self.clone() }
    }

    /// The leaf's name, None where the weight requires no gradient.
    pub fn leaf_id(&self) -> Option<LeafId> {
        self.node().map(|node| node.leaf_id())
    }

    /// What a gradient flows back into, if anything.
    pub(crate) fn node(&self) -> Option<&Arc<Node<Tensor>>> {
        self.source.as_ref().map(|source| &source.node)
    }

    /// A copy of the elements of a weight that [trains](Self::var), (O, I, kh, kw).
    pub fn values(&self) -> Tensor {
        self.device.kernels().unpack(self.packed()).reshape(&self.shape)
    }

    /// Gives other elements to a weight that [trains](Self::var).
    pub fn set_values(&mut self, values: &[f32]) {
        let bytes = bytemuck::cast_slice(values);
        check_bytes(bytes, DType::F32, self.shape);
        let packed = self.device.kernels().pack(bytes, DType::F32, matrix_shape(self.shape), DType::F32);
        self.elements = Arc::new(Elements::Packed(packed));
    }

    /// Takes an optimizer's step: each element w of a weight that [trains](Self::var) becomes w · keep − factor · d, with the d
    /// of `direction`, (O, I, kh, kw) under whatever shape, and a factor (). In place, unless other clones are alive, which keep
    /// what they have.
    ///
    /// # Panics
    /// If the direction has another number of elements, or a dtype is not f32.
    pub fn step(&mut self, keep: f32, factor: &Tensor, direction: &Tensor) {
        self.packed();
        let kernels = self.device.kernels();
        match Arc::get_mut(&mut self.elements) {
            Some(Elements::Packed(packed)) => return kernels.step_packed(packed, keep, factor, direction),
            Some(Elements::Lazy { packed, .. } | Elements::Streamed { packed, .. }) => {
                let packed = packed.take().expect("packed above");
                self.elements = Arc::new(Elements::Packed(packed));
            }
            None => self.elements = Arc::new(Elements::Packed(kernels.pack_tensor(&self.values()))),
        }
        self.step(keep, factor, direction);
    }

    /// Gives the gradient `dw` (O, I, kh, kw), f32, the shape and the dtype of what was packed.
    pub(crate) fn gradient(&self, dw: Tensor) -> Tensor {
        let source = self.source.as_ref().expect("only a trainable weight has a gradient");
        dw.reshape(&source.shape).to_dtype(source.dtype)
    }
}

/// (out, in, taps) of a weight (O, I, kh, kw).
fn matrix_shape([out, inp, kh, kw]: [usize; 4]) -> [usize; 3] {
    [out, inp, kh * kw]
}
