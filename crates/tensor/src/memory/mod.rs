//! Devices, and what lies in their memory: tensors' elements, and weights in the layout of a device's kernels.

mod buffer;
mod heap;
mod meta;

use std::any::Any;

pub(crate) use buffer::BufferPool;
pub use buffer::{Buffer, trim_pool};
pub use heap::keep_heap_small;
pub(crate) use meta::{MetaMemory, peak_bytes};

use crate::dtype::DType;

/// Where a tensor lies, and what computes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU, with the threads of the rayon pool that the caller is in.
    #[default]
    Cpu,
    /// Nothing: tensors have shapes and dtypes, and no numbers. [`count`](crate::meta::count) counts what they would take.
    Meta,
    /// Plain loops, with which tests compare the other devices.
    #[cfg(test)]
    Reference,
}

/// A tensor's memory.
pub(crate) enum Storage {
    Cpu(Buffer),
    Meta(MetaMemory),
    #[cfg(test)]
    Reference(Vec<f32>),
}

impl Storage {
    pub(crate) fn device(&self) -> Device {
        match self {
            Storage::Cpu(_) => Device::Cpu,
            Storage::Meta(_) => Device::Meta,
            #[cfg(test)]
            Storage::Reference(_) => Device::Reference,
        }
    }

    /// The memory of a tensor that lies on the CPU.
    ///
    /// # Panics
    /// If it lies elsewhere.
    pub(crate) fn cpu(&self) -> &Buffer {
        match self {
            Storage::Cpu(buffer) => buffer,
            _ => panic!("device of a tensor: expected the CPU, found {:?}", self.device()),
        }
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// If it lies elsewhere.
    pub(crate) fn cpu_mut(&mut self) -> &mut Buffer {
        match self {
            Storage::Cpu(buffer) => buffer,
            _ => panic!("device of a tensor: expected the CPU, found {:?}", self.device()),
        }
    }

    /// The numbers of a tensor on the reference device.
    #[cfg(test)]
    pub(crate) fn reference(&self) -> &[f32] {
        let Storage::Reference(values) = self else { panic!("device of a tensor: expected the reference") };
        values
    }

    /// Whether it holds a tensor of this shape.
    pub(crate) fn fits(&self, shape: &[usize], dtype: DType) -> bool {
        let bytes = dtype.bytes_of(shape);
        match self {
            Storage::Cpu(buffer) => buffer.as_slice::<u8>().len() == bytes,
            Storage::Meta(memory) => memory.bytes() == bytes,
            #[cfg(test)]
            Storage::Reference(values) => values.len() == bytes / dtype.size(),
        }
    }
}

impl From<Buffer> for Storage {
    fn from(buffer: Buffer) -> Self {
        Storage::Cpu(buffer)
    }
}

/// A weight in the layout of a device's kernels, which alone know what that is.
pub(crate) struct Packed {
    store: DType,
    elements: Box<dyn Any + Send + Sync>,
}

impl Packed {
    /// `elements` in a device's layout, of type `store`.
    pub(crate) fn new(elements: impl Any + Send + Sync, store: DType) -> Packed {
        Packed { store, elements: Box::new(elements) }
    }

    /// What the elements are stored as.
    pub(crate) fn store(&self) -> DType {
        self.store
    }

    /// The elements in a device's layout `T`.
    ///
    /// # Panics
    /// If they are in the layout of another device.
    pub(crate) fn elements<T: Any>(&self) -> &T {
        self.elements.downcast_ref().expect("device of a weight: expected that of the product")
    }

    /// The same, to be changed.
    pub(crate) fn elements_mut<T: Any>(&mut self) -> &mut T {
        self.elements.downcast_mut().expect("device of a weight: expected that of the product")
    }
}
