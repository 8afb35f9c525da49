//! Transposes, on the way into the kernels' layout.

use half::bf16;

use super::isa::{Isa, isa};
use super::math::Element;
use crate::dtype::DType;

/// y[c · y_stride + r] = x[r · x_stride + c], for r < rows and c < columns, converted.
pub(super) fn transpose<X: Element, Y: Element>(
    x: &[X],
    x_stride: usize,
    [rows, columns]: [usize; 2],
    y: &mut [Y],
    y_stride: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    let x = &x[..(rows - 1) * x_stride + columns];
    let y = &mut y[..(columns - 1) * y_stride + rows];
    // Whole 8 × 8 blocks use vector kernels, where there are some. The edges are moved element by element.
    let [whole_rows, whole_columns] = match (X::DTYPE, Y::DTYPE) {
        (DType::F32, DType::F32) | (DType::BF16, _) if has_avx2() => [rows / 8 * 8, columns / 8 * 8],
        _ => [0, 0],
    };
    #[cfg(target_arch = "x86_64")]
    if whole_rows > 0 && whole_columns > 0 {
        let (x_at, y_at) = (x.as_ptr(), y.as_mut_ptr());
        let size = [whole_rows, whole_columns];
        // SAFETY: AVX2 was detected; x and y are cut to hold every element of the rows and columns.
        unsafe {
            match (X::DTYPE, Y::DTYPE) {
                (DType::F32, _) => avx2::<f32, f32>(x_at.cast(), x_stride, size, y_at.cast(), y_stride),
                (_, DType::F32) => avx2::<bf16, f32>(x_at.cast(), x_stride, size, y_at.cast(), y_stride),
                _ => avx2::<bf16, bf16>(x_at.cast(), x_stride, size, y_at.cast(), y_stride),
            }
        }
    }
    for r in 0..rows {
        for c in if r < whole_rows { whole_columns } else { 0 }..columns {
            y[c * y_stride + r] = Y::from_f32(x[r * x_stride + c].to_f32());
        }
    }
}

/// [`transpose`] of pairs of bf16, which stay together. `rows` counts pairs' rows, `columns` pairs.
pub(super) fn transpose_pairs(
    x: &[bf16],
    x_stride: usize,
    size: [usize; 2],
    y: &mut [bf16],
    y_stride: usize,
) {
    // The pairs are only moved as f32, and no arithmetic is done on them.
    match (bytemuck::try_cast_slice::<_, f32>(x), bytemuck::try_cast_slice_mut::<_, f32>(y)) {
        (Ok(x), Ok(y)) => transpose(x, x_stride, size, y, y_stride),
        _ => panic!("pairs of bf16 lie at multiples of four bytes"),
    }
}

fn has_avx2() -> bool {
    matches!(isa(), Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16)
}

/// Eight stored elements, and the same as f32.
#[cfg(target_arch = "x86_64")]
trait Eight {
    /// # Safety
    /// AVX2, and eight readable elements.
    unsafe fn load(at: *const Self) -> std::arch::x86_64::__m256;
    /// Values that are elements exactly.
    ///
    /// # Safety
    /// AVX2, and eight writable elements.
    unsafe fn store(at: *mut Self, x: std::arch::x86_64::__m256);
}

#[cfg(target_arch = "x86_64")]
impl Eight for f32 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(at: *const f32) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(at: *mut f32, x: std::arch::x86_64::__m256) {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm256_storeu_ps(at, x) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Eight for bf16 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(at: *const bf16) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        let narrow = unsafe { _mm_loadu_si128(at.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(at: *mut bf16, x: std::arch::x86_64::__m256) {
        use std::arch::x86_64::*;
        let bits = _mm256_srli_epi32::<16>(_mm256_castps_si256(x));
        let (low, high) = (_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(at.cast(), _mm_packus_epi32(low, high)) }
    }
}

/// Whole 8 × 8 blocks.
///
/// # Safety
/// AVX2; x and y hold every element that the sizes and strides reach; sizes are multiples of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2<X: Eight, Y: Eight>(
    x: *const X,
    x_stride: usize,
    size: [usize; 2],
    y: *mut Y,
    y_stride: usize,
) {
    use std::arch::x86_64::*;
    for r in (0..size[0]).step_by(8) {
        for c in (0..size[1]).step_by(8) {
            // SAFETY: the caller's promise.
            let row = |i: usize| unsafe { X::load(x.add((r + i) * x_stride + c)) };
            // Pairs of rows, then of pairs, then of halves.
            let two: [[__m256; 2]; 4] = std::array::from_fn(|i| {
                let (a, b) = (row(2 * i), row(2 * i + 1));
                [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
            });
            let four: [[__m256; 4]; 2] = std::array::from_fn(|i| {
                let ([a0, a1], [b0, b1]) = (two[2 * i], two[2 * i + 1]);
                [
                    _mm256_shuffle_ps::<0b01_00_01_00>(a0, b0),
                    _mm256_shuffle_ps::<0b11_10_11_10>(a0, b0),
                    _mm256_shuffle_ps::<0b01_00_01_00>(a1, b1),
                    _mm256_shuffle_ps::<0b11_10_11_10>(a1, b1),
                ]
            });
            for (i, (a, b)) in four[0].into_iter().zip(four[1]).enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    Y::store(y.add((c + i) * y_stride + r), _mm256_permute2f128_ps::<0x20>(a, b));
                    Y::store(y.add((c + i + 4) * y_stride + r), _mm256_permute2f128_ps::<0x31>(a, b));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element lands in its place, and nothing else is written, for sizes that are no multiples of eight.
    #[test]
    fn transposes_every_element() {
        check::<f32, f32>();
        check::<bf16, f32>();
        check::<bf16, bf16>();
    }

    fn check<X: Element, Y: Element>() {
        for [rows, columns] in [[8, 8], [16, 24], [13, 19], [3, 40], [0, 5], [5, 0]] {
            let (x_stride, y_stride) = (columns + 3, rows + 5);
            let x: Vec<X> = (0..rows * x_stride + columns).map(|i| X::from_f32((i % 251) as f32)).collect();
            let mut y = vec![Y::from_f32(-1.0); columns * y_stride + rows];
            transpose(&x, x_stride, [rows, columns], &mut y, y_stride);
            for (i, y) in y.iter().enumerate() {
                let (c, r) = (i / y_stride, i % y_stride);
                let inside = r < rows && c < columns;
                let expected = if inside { x[r * x_stride + c].to_f32() } else { -1.0 };
                assert_eq!(y.to_f32(), expected, "row {r}, column {c}");
            }
        }
    }
}
