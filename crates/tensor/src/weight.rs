//! Weights of linear and convolution layers, in the kernels' layout.

use std::sync::Arc;

use crate::cpu::pack::Packed;
use crate::{DType, Tensor};

/// The weight of a linear layer (out, in) or of a convolution (O, I, kh, kw). Cloning shares the memory.
#[derive(Clone)]
pub struct Weight {
    pub(crate) packed: Arc<Packed>,
    /// Height and width of a convolution's kernel; [1, 1] for a linear layer.
    pub(crate) kernel: [usize; 2],
    /// What a gradient flows back into, if anything.
    pub(crate) source: Option<Tensor>,
}

impl Weight {
    /// Packs a row-major (out, in) matrix, given as the bytes of a file, to be stored as `store`.
    pub fn linear(src: &[u8], src_dtype: DType, out: usize, inp: usize, store: DType) -> Weight {
        Self::conv(src, src_dtype, [out, inp, 1, 1], store)
    }

    /// Packs a (O, I, kh, kw) convolution weight, given as the bytes of a file.
    pub fn conv(src: &[u8], src_dtype: DType, shape: [usize; 4], store: DType) -> Weight {
        let [out, inp, kh, kw] = shape;
        let packed = Packed::new(src, src_dtype, out, inp, kh * kw, store);
        Weight { packed: Arc::new(packed), kernel: [kh, kw], source: None }
    }

    /// Packs a tensor (out, in) or (O, I, kh, kw); where it requires a gradient, one flows back into it.
    pub fn from_tensor(w: &Tensor) -> Weight {
        let shape = match *w.shape() {
            [out, inp] => [out, inp, 1, 1],
            [out, inp, kh, kw] => [out, inp, kh, kw],
            _ => panic!("a weight is (out, in) or (O, I, kh, kw), not {:?}", w.shape()),
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
        self.packed.out
    }

    /// Inputs of the layer (channels, for a convolution).
    pub fn inp(&self) -> usize {
        self.packed.inp
    }

    /// Gives the gradient `dw` ((kh · kw) matrices (out, in), f32) the shape of the source.
    pub(crate) fn gradient(&self, dw: &[Tensor]) -> Tensor {
        let taps = dw.len();
        let count = self.out() * self.inp();
        let mut data = vec![0.0; count * taps];
        for (tap, dw) in dw.iter().enumerate() {
            for (i, &value) in dw.f32s().iter().enumerate() {
                data[i * taps + tap] = value;
            }
        }
        let source = self.source.as_ref().expect("only a trainable weight has a gradient");
        Tensor::from_vec(data, source.shape()).to_dtype(source.dtype())
    }
}
