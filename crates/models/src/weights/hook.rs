//! A hook that changes tensors as they are loaded.

use calotype_tensor::{DType, WeightBytes};

/// Changes tensors as they are loaded, by checkpoint key.
pub trait TensorHook: Send + Sync {
    /// Whether the tensor at `key` has a replacement.
    fn changes(&self, key: &str) -> bool;
    /// The replacement of the tensor at `key`, with as many elements. The file has the elements `stored`, of type `dtype`.
    /// `None`: the file's tensor is used.
    fn replace(&self, key: &str, stored: &dyn WeightBytes, dtype: DType) -> Option<Replacement>;
}

/// The elements that replace a tensor's, row-major.
pub enum Replacement {
    /// Elements in another file, of this dtype.
    Stored(Box<dyn WeightBytes>, DType),
    /// Computed elements, f32.
    Values(Vec<f32>),
}
