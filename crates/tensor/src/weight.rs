//! Weights of linear and convolution layers, in the kernels' layout.

use crate::{DType, Tensor};

/// The weight of a linear layer (out, in) or of a convolution (O, I, kh, kw).
#[derive(Clone)]
pub struct Weight;

impl Weight {
    /// Packs a row-major (out, in) matrix, given as the bytes of a file, to be stored as `store`.
    pub fn linear(_src: &[u8], _src_dtype: DType, _out: usize, _inp: usize, _store: DType) -> Weight {
        panic!("not yet")
    }
    /// Packs a (O, I, kh, kw) convolution weight, given as the bytes of a file.
    pub fn conv(_src: &[u8], _src_dtype: DType, _shape: [usize; 4], _store: DType) -> Weight {
        panic!("not yet")
    }
    /// Packs an f32 tensor (out, in) or (O, I, kh, kw); a gradient flows back into it.
    pub fn from_tensor(_w: &Tensor) -> Weight {
        panic!("not yet")
    }
}
