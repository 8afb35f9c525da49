//! Elements of tensors in files: their types, and their conversion.

use calotype_tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// The bytes of a tensor's elements of `size` bytes, row by row, out of a file that has them at these strides.
pub(super) fn gathered(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride * size).sum();
        out.extend_from_slice(&bytes[at..at + size]);
        for (i, size) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// The dtype of a safetensors element type. `None`: weights of this type are not supported.
pub fn element_type(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}

/// The bytes of an element that takes whole bytes.
pub(super) fn element_bytes(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Converts little-endian bytes of a file, at any alignment, to f32.
pub fn to_f32(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.size()];
    if dtype == DType::F32 {
        for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *o = f32::from_le_bytes(*b);
        }
        return out;
    }
    // In pieces, because the slice conversions use the CPU's own instructions.
    let mut bits = [0u16; 2048];
    for (o, b) in out.chunks_mut(bits.len()).zip(bytes.chunks(2 * bits.len())) {
        let bits = &mut bits[..o.len()];
        for (bit, pair) in bits.iter_mut().zip(b.as_chunks::<2>().0) {
            *bit = u16::from_le_bytes(*pair);
        }
        match dtype {
            DType::F16 => {
                half::slice::HalfBitsSliceExt::reinterpret_cast::<f16>(&*bits).convert_to_f32_slice(o)
            }
            _ => half::slice::HalfBitsSliceExt::reinterpret_cast::<bf16>(&*bits).convert_to_f32_slice(o),
        }
    }
    out
}
