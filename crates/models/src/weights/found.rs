//! A tensor that was taken: where its elements are.

use std::ops::Range;
use std::sync::Arc;

use calotype_tensor::{DType, Device, Tensor, WeightBytes};

use super::Checkpoint;
use super::element::to_f32;

/// A tensor whose shape has been checked.
pub(super) struct Found {
    pub(super) content: Content,
    pub(super) dtype: DType,
}

/// The place of a tensor's elements.
pub(super) enum Content {
    /// In a file.
    Stored(Box<dyn WeightBytes>),
    /// In memory only.
    Values(Vec<f32>),
    /// In memory, because the file has them in another order or format.
    Converted(Held),
}

/// Bytes in memory.
pub(super) struct Held(pub(super) Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&self) {}
}

impl Found {
    /// The elements as an f32 tensor of this shape on a device.
    pub(super) fn tensor(self, shape: &[usize], device: Device) -> Tensor {
        match self.content {
            Content::Values(values) => device.upload(&values, shape),
            Content::Converted(Held(bytes)) => device.upload(&to_f32(&bytes, self.dtype), shape),
            Content::Stored(bytes) => {
                let tensor = device.upload(&to_f32(bytes.bytes(), self.dtype), shape);
                bytes.release();
                tensor
            }
        }
    }
}

/// The bytes of a tensor in its file. The file stays mapped as long as this value exists.
pub(super) struct MappedTensor {
    pub(super) all: Arc<Checkpoint>,
    pub(super) file: usize,
    pub(super) range: Range<usize>,
}

impl WeightBytes for MappedTensor {
    fn bytes(&self) -> &[u8] {
        &self.all.files[self.file].map[self.range.clone()]
    }

    fn release(&self) {
        self.all.files[self.file].map.release(self.range.clone());
    }
}
