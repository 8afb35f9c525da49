//! The tensor: a shape over shared, contiguous memory.

use std::sync::Arc;

use bytemuck::AnyBitPattern;
use half::bf16;

use crate::dtype::DType;
use crate::memory::{Buffer, Device, Storage};
use crate::node::{LeafId, Node};

/// An n-dimensional array, contiguous, row-major, f32 or bf16. Cloning shares the memory.
#[derive(Clone)]
pub struct Tensor {
    data: Arc<Storage>,
    shape: Vec<usize>,
    dtype: DType,
    pub(crate) node: Option<Arc<Node<Tensor>>>,
}

impl Tensor {
    /// A tensor in the memory of a device.
    pub(crate) fn new(data: impl Into<Storage>, shape: &[usize], dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        let data = data.into();
        assert!(data.fits(shape, dtype), "memory for shape {shape:?} in {dtype}");
        Tensor { data: Arc::new(data), shape: shape.to_vec(), dtype, node: None }
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

    /// Where the tensor lies.
    pub fn device(&self) -> Device {
        self.data.device()
    }

    /// The elements on the CPU, which must be of type `T` ([`f32`] or [`bf16`]).
    pub(crate) fn elements<T: AnyBitPattern>(&self) -> &[T] {
        assert_eq!(size_of::<T>(), self.dtype.size(), "element type of a {} tensor", self.dtype);
        self.data.cpu().as_slice()
    }

    /// The numbers of a tensor on the reference device.
    #[cfg(test)]
    pub(crate) fn reference(&self) -> &[f32] {
        self.data.reference()
    }

    /// The elements of an f32 tensor on the CPU.
    ///
    /// # Panics
    /// If the dtype or the device is another.
    pub fn f32s(&self) -> &[f32] {
        assert_eq!(self.dtype, DType::F32);
        self.data.cpu().as_slice()
    }

    /// The elements of an f32 tensor on the CPU, to be changed: of a copy, where others share its memory.
    ///
    /// # Panics
    /// If the dtype or the device is another.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        assert_eq!(self.dtype, DType::F32);
        if Arc::get_mut(&mut self.data).is_none() {
            let mut copy = Buffer::uninit(self.dtype.bytes_of(&self.shape));
            copy.as_mut_slice().copy_from_slice(self.f32s());
            self.data = Arc::new(copy.into());
        }
        Arc::get_mut(&mut self.data).expect("no other tensor has it").cpu_mut().as_mut_slice()
    }

    /// The elements of a bf16 tensor on the CPU.
    ///
    /// # Panics
    /// If the dtype or the device is another.
    pub fn bf16s(&self) -> &[bf16] {
        assert_eq!(self.dtype, DType::BF16);
        self.data.cpu().as_slice()
    }

    /// The same memory under another shape of as many elements, cut off from the tape.
    pub(crate) fn viewed(&self, shape: &[usize]) -> Tensor {
        Tensor { shape: shape.to_vec(), ..self.detach() }
    }

    /// The same values as a new leaf that requires a gradient.
    pub fn var(self) -> Tensor {
        self.with_node(Some(Node::leaf()))
    }

    /// The same values, cut off from the tape.
    pub fn detach(&self) -> Tensor {
        self.clone().with_node(None)
    }

    /// Whether a gradient flows back through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The leaf's name, None where the tensor requires no gradient.
    pub fn leaf_id(&self) -> Option<LeafId> {
        self.node.as_deref().map(Node::leaf_id)
    }

    /// What computed the tensor, where a gradient flows back through it.
    pub(crate) fn node(&self) -> Option<&Arc<Node<Tensor>>> {
        self.node.as_ref()
    }

    pub(crate) fn with_node(mut self, node: Option<Arc<Node<Tensor>>>) -> Tensor {
        self.node = node;
        self
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?}, {})", self.shape, self.dtype)
    }
}
