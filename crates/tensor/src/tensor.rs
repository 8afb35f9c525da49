//! The tensor: a shape over shared, contiguous memory.

use std::sync::Arc;

use bytemuck::AnyBitPattern;
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::DType;
use crate::cpu::{self, Buffer};
use crate::tape::{self, Node};

/// An n-dimensional array, contiguous, row-major, f32 or bf16. Cloning shares the memory.
#[derive(Clone)]
pub struct Tensor {
    data: Arc<Buffer>,
    shape: Vec<usize>,
    dtype: DType,
    pub(crate) node: Option<Arc<Node>>,
}

/// The bytes of a tensor of this shape.
///
/// # Panics
/// If usize cannot hold them.
fn bytes_of(shape: &[usize], dtype: DType) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    let bytes = shape.iter().try_fold(dtype.size(), |bytes, &n| bytes.checked_mul(n));
    bytes.unwrap_or_else(|| {
        panic!("a tensor {shape:?} in {dtype}: expected at most {} bytes, found more", usize::MAX)
    })
}

impl Tensor {
    pub(crate) fn new(data: Buffer, shape: &[usize], dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        let bytes = bytes_of(shape, dtype);
        assert_eq!(data.as_slice::<u8>().len(), bytes, "memory for shape {shape:?} in {dtype}");
        Tensor { data: Arc::new(data), shape: shape.to_vec(), dtype, node: None }
    }

    /// An f32 tensor of these values.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Tensor {
        Self::from_slice(&data, shape)
    }

    /// An f32 tensor with a copy of these values.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn from_slice(data: &[f32], shape: &[usize]) -> Tensor {
        let mut buffer = Buffer::uninit(data.len() * 4);
        buffer.as_mut_slice::<f32>().copy_from_slice(data);
        Self::new(buffer, shape, DType::F32)
    }

    /// A tensor of zeros.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn zeros(shape: &[usize], dtype: DType) -> Tensor {
        Self::full(shape, 0.0, dtype)
    }

    /// A tensor filled with one value.
    ///
    /// # Panics
    /// If the dtype is f16, or no memory can be so large.
    pub fn full(shape: &[usize], value: f32, dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        let mut buffer = Buffer::uninit(bytes_of(shape, dtype));
        match dtype {
            DType::F32 => buffer.as_mut_slice::<f32>().fill(value),
            DType::BF16 => buffer.as_mut_slice::<bf16>().fill(bf16::from_f32(value)),
            DType::F16 => unreachable!("refused above"),
        }
        Self::new(buffer, shape, dtype)
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Size of dimension `i`.
    ///
    /// # Panics
    /// If there is no such dimension.
    pub fn dim(&self, i: usize) -> usize {
        self.shape[i]
    }

    /// Size of the last dimension: an image's channels, a sequence's features.
    ///
    /// # Panics
    /// If the shape is ().
    pub fn last_dim(&self) -> usize {
        *self.shape.last().expect("a tensor of at least one dimension")
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// The product of all dimensions but the last: pixels, or tokens.
    pub(crate) fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements, which must be of type `T` ([`f32`] or [`bf16`]).
    pub(crate) fn elements<T: AnyBitPattern>(&self) -> &[T] {
        assert_eq!(size_of::<T>(), self.dtype.size(), "element type of a {} tensor", self.dtype);
        self.data.as_slice()
    }

    /// The elements of an f32 tensor. Panics on another dtype.
    pub fn f32s(&self) -> &[f32] {
        assert_eq!(self.dtype, DType::F32);
        self.data.as_slice()
    }

    /// The elements of an f32 tensor, to be changed: of a copy, where others share its memory. Panics on another dtype.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        assert_eq!(self.dtype, DType::F32);
        if Arc::get_mut(&mut self.data).is_none() {
            *self = Self::from_slice(self.f32s(), &self.shape).with_node(self.node.take());
        }
        Arc::get_mut(&mut self.data).expect("no other tensor has it").as_mut_slice()
    }

    /// The elements of a bf16 tensor. Panics on another dtype.
    pub fn bf16s(&self) -> &[bf16] {
        assert_eq!(self.dtype, DType::BF16);
        self.data.as_slice()
    }

    /// The elements as f32, whatever the dtype.
    pub fn to_vec(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.f32s().to_vec(),
            _ => self.bf16s().to_f32_vec(),
        }
    }

    /// The same memory under another shape.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        let fits = bytes_of(shape, self.dtype) == bytes_of(&self.shape, self.dtype);
        assert!(
            fits,
            "reshape of {:?}: expected a shape of {} elements, found {shape:?}",
            self.shape,
            self.numel()
        );
        let view = Tensor { shape: shape.to_vec(), ..self.detach() };
        let old = self.shape.clone();
        tape::record(view, &[Some(self)], move |dy| vec![Some(dy.reshape(&old))])
    }

    /// The same values, rounded to `dtype`.
    ///
    /// # Panics
    /// If that is f16.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        if dtype == self.dtype {
            return self.clone();
        }
        let from = self.dtype;
        let y = cpu::elementwise::convert(self, dtype);
        tape::record(y, &[Some(self)], move |dy| vec![Some(dy.to_dtype(from))])
    }

    /// The same values as a new leaf that requires a gradient.
    pub fn var(self) -> Tensor {
        self.with_node(Some(Node::leaf()))
    }

    /// A leaf of this shape for f32 values that lie elsewhere: it takes their gradient, and has no elements itself.
    pub(crate) fn stand_in(shape: &[usize]) -> Tensor {
        let data = Arc::new(Buffer::uninit(0));
        Tensor { data, shape: shape.to_vec(), dtype: DType::F32, node: Some(Node::leaf()) }
    }

    /// The same values, cut off from the tape.
    pub fn detach(&self) -> Tensor {
        self.clone().with_node(None)
    }

    /// Whether a gradient flows back through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) fn with_node(mut self, node: Option<Arc<Node>>) -> Tensor {
        self.node = node;
        self
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?}, {})", self.shape, self.dtype)
    }
}
