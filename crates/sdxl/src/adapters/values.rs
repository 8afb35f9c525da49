//! Converts the tensors of a file to values.

use std::ops::Range;
use std::path::Path;

use calotype_tensor::Tensor;
use half::f16;
use safetensors::tensor::{Dtype, TensorInfo};

use super::AdapterError;
use calotype_models::weights::{Header, element_type, to_f32, tuple};

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
        (None, Dtype::F8_E4M3) => bytes.iter().map(|b| e4m3(*b)).collect(),
        (None, Dtype::F8_E5M2) => bytes.iter().map(|b| e5m2(*b)).collect(),
        (None, other) => {
            let problem = format!("expected floats (f64, f32, f16, bf16, f8_e4m3, f8_e5m2), found {other:?}");
            return Err(AdapterError::key(path, key, problem));
        }
    };
    Ok(Tensor::from_vec(values, &info.shape))
}

/// An 8-bit float: sign, 4 bits of exponent (bias 7), 3 bits of mantissa. There is no infinity; all ones is NaN ("FN").
fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
    let value = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-6),
        _ => (1.0 + mantissa) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { value } else { -value }
}

/// An 8-bit float: the upper half of an f16.
fn e5m2(bits: u8) -> f32 {
    f16::from_bits(u16::from(bits) << 8).to_f32()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the extreme 8-bit floats: zeros, the smallest, one, the largest, NaN.
    #[test]
    fn floats_of_8_bits() {
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0xb9, -1.125),
            (0x7e, 448.0),
        ] {
            assert_eq!(e4m3(bits), value, "{bits:#x}");
        }
        for (bits, value) in [(0x01, 2f32.powi(-16)), (0x3c, 1.0), (0xbd, -1.25), (0x7b, 57344.0)] {
            assert_eq!(e5m2(bits), value, "{bits:#x}");
        }
        assert!([e4m3(0x7f), e4m3(0xff), e5m2(0x7f)].iter().all(|x| x.is_nan()));
        assert_eq!(e5m2(0xfc), f32::NEG_INFINITY);
    }
}
