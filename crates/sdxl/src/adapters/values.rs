//! Converts the tensors of a file to values.

use std::ops::Range;
use std::path::Path;

use calotype_tensor::Tensor;
use safetensors::tensor::{Dtype, TensorInfo};

use super::AdapterError;
use calotype_models::weights::{Header, element_type, float8, to_f32, tuple};

/// The tensors in the order of their keys, so that errors and results do not depend on the file's order.
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
    let values = match (element_type(info.dtype), info.dtype) {
        (Some(dtype), _) => to_f32(bytes, dtype),
        (None, Dtype::F64) => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        (None, Dtype::F8_E4M3) => bytes.iter().map(|b| float8::e4m3(*b).to_f32()).collect(),
        (None, Dtype::F8_E5M2) => bytes.iter().map(|b| float8::e5m2(*b).to_f32()).collect(),
        (None, other) => {
            let problem = format!("expected floats (f64, f32, f16, bf16, f8_e4m3, f8_e5m2), found {other:?}");
            return Err(AdapterError::key(path, key, problem));
        }
    };
    Ok(Tensor::from_vec(values, &info.shape))
}

/// An alpha. kohya's trainer may also save it as an integer.
pub(super) fn scalar(path: &Path, key: &str, info: &TensorInfo, bytes: &[u8]) -> Result<f32, AdapterError> {
    let value = match info.dtype {
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

/// Reshapes (a, b, 1, 1) to (a, b).
pub(super) fn squeezed(tensor: Tensor) -> Tensor {
    match *tensor.shape() {
        [a, b, 1, 1] => tensor.reshape(&[a, b]),
        _ => tensor,
    }
}

pub(super) fn shape_problem(expected: &str, found: &Tensor) -> String {
    format!("expected {expected}, found {}", tuple(found.shape()))
}
