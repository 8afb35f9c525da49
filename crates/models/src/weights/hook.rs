//! Tensors that are not taken as their file has them.

use calotype_tensor::{DType, WeightBytes};

/// Changes tensors as they are loaded, by checkpoint key.
pub trait TensorHook: Send + Sync {
    /// What takes the place of the tensor at `key`, whose elements in the file are `stored`, of `dtype`; `None` where the file's
    /// tensor is taken. It has as many elements.
    fn replace(&self, key: &str, stored: &dyn WeightBytes, dtype: DType) -> Option<Replacement>;
}

/// The elements that take the place of a tensor's, row-major.
pub enum Replacement {
    /// In another file, of this element type.
    Stored(Box<dyn WeightBytes>, DType),
    /// Computed, f32.
    Values(Vec<f32>),
}
