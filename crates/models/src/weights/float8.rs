//! 8-bit floats, as f16, which has all of their values.

use half::f16;
use safetensors::tensor::Dtype;

/// The function that reads an 8-bit element type. `None`: the type is another.
pub(super) fn reader(dtype: Dtype) -> Option<fn(u8) -> f16> {
    match dtype {
        Dtype::F8_E4M3 => Some(e4m3),
        Dtype::F8_E5M2 => Some(e5m2),
        _ => None,
    }
}

/// The bytes of f16 elements.
pub(super) fn widen(bytes: &[u8], read: fn(u8) -> f16) -> Vec<u8> {
    let table: Vec<[u8; 2]> = (0..=255).map(|bits| read(bits).to_le_bytes()).collect();
    bytes.iter().flat_map(|bits| table[usize::from(*bits)]).collect()
}

/// Sign, 4 bits of exponent (bias 7), 3 bits of mantissa. There is no infinity; all ones is NaN ("FN").
pub fn e4m3(bits: u8) -> f16 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
    let value = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-6),
        _ => (1.0 + mantissa) * 2f32.powi(exponent - 7),
    };
    f16::from_f32(if bits & 0x80 == 0 { value } else { -value })
}

/// The upper half of an f16.
pub fn e5m2(bits: u8) -> f16 {
    f16::from_bits(u16::from(bits) << 8)
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
            assert_eq!(e4m3(bits).to_f32(), value, "{bits:#x}");
        }
        for (bits, value) in [(0x01, 2f32.powi(-16)), (0x3c, 1.0), (0xbd, -1.25), (0x7b, 57344.0)] {
            assert_eq!(e5m2(bits).to_f32(), value, "{bits:#x}");
        }
        assert!([e4m3(0x7f), e4m3(0xff), e5m2(0x7f)].iter().all(|x| x.is_nan()));
        assert_eq!(e5m2(0xfc), f16::NEG_INFINITY);
    }
}
