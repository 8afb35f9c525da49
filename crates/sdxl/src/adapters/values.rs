//! The tensors of a file as values.

use std::ops::Range;
use std::path::Path;

use calotype_tensor::Tensor;
use safetensors::tensor::{Dtype, TensorInfo};

use super::AdapterError;
use crate::weights::{Header, element_type, to_f32, tuple};

/// In the order of the keys, so that errors and results do not depend on the file's order.
pub(super) fn sorted(header: Header) -> Vec<(String, TensorInfo, Range<usize>)> {
    let mut tensors = header.tensors;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// A tensor as f32.
pub(super) fn floats(
    path: &Path,
    key: &str,
    info: &TensorInfo,
    bytes: &[u8],
) -> Result<Tensor, AdapterError> {
    let Some(dtype) = element_type(info.dtype) else {
        return Err(AdapterError::key(
            path,
            key,
            format!("expected f32, f16 or bf16, found {:?}", info.dtype),
        ));
    };
    Ok(Tensor::from_vec(to_f32(bytes, dtype), &info.shape))
}

/// An alpha, which kohya's trainer also saves as an integer.
pub(super) fn scalar(path: &Path, key: &str, info: &TensorInfo, bytes: &[u8]) -> Result<f32, AdapterError> {
    let value = match info.dtype {
        Dtype::F64 => bytes.first_chunk().map(|b| f64::from_le_bytes(*b) as f32),
        Dtype::I64 => bytes.first_chunk().map(|b| i64::from_le_bytes(*b) as f32),
        Dtype::I32 => bytes.first_chunk().map(|b| i32::from_le_bytes(*b) as f32),
        _ => floats(path, key, info, bytes)?.f32s().first().copied(),
    };
    match value.filter(|x| x.is_finite() && info.shape.iter().product::<usize>() == 1) {
        Some(alpha) => Ok(alpha),
        None => {
            Err(AdapterError::key(path, key, format!("expected one number, found {}", tuple(&info.shape))))
        }
    }
}

/// (a, b, 1, 1) as (a, b).
pub(super) fn squeezed(tensor: Tensor) -> Tensor {
    match *tensor.shape() {
        [a, b, 1, 1] => tensor.reshape(&[a, b]),
        _ => tensor,
    }
}

pub(super) fn shape_problem(expected: &str, found: &Tensor) -> String {
    format!("expected {expected}, found {}", tuple(found.shape()))
}
