//! Weights as a file has them.

use crate::dtype::DType;

/// A weight's row-major elements where they lie already: in a mapped file, say.
pub trait WeightBytes: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
    /// Told when they have been copied and will not be read again soon.
    fn release(&self) {}
}

/// Elements (out, in, taps), row-major.
pub(crate) struct StoredWeight {
    pub(crate) bytes: Box<dyn WeightBytes>,
    pub(crate) dtype: DType,
    pub(crate) out: usize,
    pub(crate) inp: usize,
    /// Positions of a convolution's kernel; 1 in a linear layer.
    pub(crate) taps: usize,
}

impl StoredWeight {
    /// The elements, of type `dtype`.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}
