//! Elements of tensors in files: their types, and their conversion.

use calotype_tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// A matrix (rows, columns) of the bytes of its transpose.
pub(super) fn transposed(bytes: &[u8], dtype: DType, shape: &[usize]) -> Vec<u8> {
    let &[rows, columns] = shape else { return bytes.to_vec() };
    let size = dtype.size();
    let at = |row: usize, column: usize| (column * rows + row) * size;
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    cells.flat_map(|(row, column)| &bytes[at(row, column)..][..size]).copied().collect()
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
