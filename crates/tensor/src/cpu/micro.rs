//! The innermost kernels: a tile of C += A Bᵀ held in registers, one for each instruction set.
//!
//! A tile has `MR` rows and `NR` columns. The rows of A are given by pointers, so that a
//! convolution's rows need no copy. B is a packed panel: for each k, `NR` values (for bf16 dot
//! products, pairs of k: `NR` times two values).

use half::bf16;

use super::math::Element;

/// One instruction set's tile kernel.
pub(super) trait Micro: Sync {
    /// What A and B hold.
    type E: Element;
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile and of a panel.
    const NR: usize;
    /// How many consecutive k lie together in a panel.
    const PAIR: usize;

    /// c (MR × NR, row-major) = A B, or += where `first` is false.
    ///
    /// # Safety
    /// The CPU has the instructions; `rows` holds MR pointers to k readable values each; `panel` holds
    /// k · NR values; `c` MR · NR; k is a multiple of PAIR.
    unsafe fn tile(k: usize, rows: *const *const Self::E, panel: *const Self::E, c: *mut f32, first: bool);
}

/// Plain Rust, with tiles of any size.
pub(super) struct Plain<E, const ROWS: usize, const COLUMNS: usize>(std::marker::PhantomData<E>);

/// For CPUs without a kernel of their own.
pub(super) type Portable = Plain<f32, 4, 16>;
/// [`Avx512`] without its instructions, for tests.
pub(super) type Emulated = Plain<f32, 12, 32>;
/// [`Avx512Bf16`] without its instructions, for tests.
pub(super) type EmulatedBf16 = Plain<bf16, 12, 32>;

impl<E: Element, const ROWS: usize, const COLUMNS: usize> Micro for Plain<E, ROWS, COLUMNS> {
    type E = E;
    const MR: usize = ROWS;
    const NR: usize = COLUMNS;
    const PAIR: usize = 4 / size_of::<E>();

    unsafe fn tile(k: usize, rows: *const *const E, panel: *const E, c: *mut f32, first: bool) {
        // SAFETY: the caller's promises are those of the pointers' lengths.
        unsafe {
            let c = &mut *c.cast::<[[f32; COLUMNS]; ROWS]>();
            let mut acc = if first { [[0.0; COLUMNS]; ROWS] } else { *c };
            for i in 0..k {
                let (group, lane) = (i / Self::PAIR * Self::PAIR, i % Self::PAIR);
                let b = std::slice::from_raw_parts(panel.add(group * COLUMNS), COLUMNS * Self::PAIR);
                for (r, acc) in acc.iter_mut().enumerate() {
                    let a = (*(*rows.add(r)).add(i)).to_f32();
                    for (j, acc) in acc.iter_mut().enumerate() {
                        *acc += a * b[j * Self::PAIR + lane].to_f32();
                    }
                }
            }
            *c = acc;
        }
    }
}

/// aarch64 NEON, 6 × 16.
#[cfg(target_arch = "aarch64")]
pub(super) struct Neon;

#[cfg(target_arch = "aarch64")]
impl Micro for Neon {
    type E = f32;
    const MR: usize = 6;
    const NR: usize = 16;
    const PAIR: usize = 1;

    unsafe fn tile(k: usize, rows: *const *const f32, panel: *const f32, c: *mut f32, first: bool) {
        use std::arch::aarch64::*;
        // SAFETY: NEON is part of aarch64; lengths are the caller's promise.
        unsafe {
            let mut acc = [[vdupq_n_f32(0.0); 4]; 6];
            if !first {
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (j, acc) in acc.iter_mut().enumerate() {
                        *acc = vld1q_f32(c.add(r * 16 + j * 4));
                    }
                }
            }
            let rows = *rows.cast::<[*const f32; 6]>();
            for i in 0..k {
                let b: [_; 4] = std::array::from_fn(|j| vld1q_f32(panel.add(i * 16 + j * 4)));
                for (acc, row) in acc.iter_mut().zip(rows) {
                    let a = *row.add(i);
                    for (acc, b) in acc.iter_mut().zip(b) {
                        *acc = vfmaq_n_f32(*acc, b, a);
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                for (j, &acc) in acc.iter().enumerate() {
                    vst1q_f32(c.add(r * 16 + j * 4), acc);
                }
            }
        }
    }
}

/// x86-64 AVX2 and FMA, 6 × 16.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    type E = f32;
    const MR: usize = 6;
    const NR: usize = 16;
    const PAIR: usize = 1;

    unsafe fn tile(k: usize, rows: *const *const f32, panel: *const f32, c: *mut f32, first: bool) {
        // SAFETY: the caller's promise.
        unsafe { avx2_tile(k, rows, panel, c, first) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_tile(k: usize, rows: *const *const f32, panel: *const f32, c: *mut f32, first: bool) {
    use std::arch::x86_64::*;
    // SAFETY: lengths are the caller's promise.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; 6];
        if !first {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm256_loadu_ps(c.add(r * 16)), _mm256_loadu_ps(c.add(r * 16 + 8))];
            }
        }
        let rows = *rows.cast::<[*const f32; 6]>();
        let mut step = |i: usize| {
            let b0 = _mm256_loadu_ps(panel.add(i * 16));
            let b1 = _mm256_loadu_ps(panel.add(i * 16 + 8));
            for (acc, row) in acc.iter_mut().zip(rows) {
                let a = _mm256_broadcast_ss(&*row.add(i));
                acc[0] = _mm256_fmadd_ps(a, b0, acc[0]);
                acc[1] = _mm256_fmadd_ps(a, b1, acc[1]);
            }
        };
        // Unrolled: 10% faster than the plain loop.
        let whole = k / 4 * 4;
        for i in (0..whole).step_by(4) {
            (i..i + 4).for_each(&mut step);
        }
        (whole..k).for_each(&mut step);
        for (r, acc) in acc.iter().enumerate() {
            _mm256_storeu_ps(c.add(r * 16), acc[0]);
            _mm256_storeu_ps(c.add(r * 16 + 8), acc[1]);
        }
    }
}

/// x86-64 AVX-512, 12 × 32.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Micro for Avx512 {
    type E = f32;
    const MR: usize = 12;
    const NR: usize = 32;
    const PAIR: usize = 1;

    unsafe fn tile(k: usize, rows: *const *const f32, panel: *const f32, c: *mut f32, first: bool) {
        // SAFETY: the caller's promise.
        unsafe { avx512_tile(k, rows, panel, c, first) }
    }
}

/// Loads a 12 × 32 tile of C, or zeros.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_load(c: *const f32, first: bool) -> [[std::arch::x86_64::__m512; 2]; 12] {
    use std::arch::x86_64::*;
    let mut acc = [[_mm512_setzero_ps(); 2]; 12];
    if !first {
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the caller's c holds 12 × 32 values.
            *acc = unsafe { [_mm512_loadu_ps(c.add(r * 32)), _mm512_loadu_ps(c.add(r * 32 + 16))] };
        }
    }
    acc
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_store(c: *mut f32, acc: [[std::arch::x86_64::__m512; 2]; 12]) {
    use std::arch::x86_64::*;
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: the caller's c holds 12 × 32 values.
        unsafe {
            _mm512_storeu_ps(c.add(r * 32), acc[0]);
            _mm512_storeu_ps(c.add(r * 32 + 16), acc[1]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512_tile(k: usize, rows: *const *const f32, panel: *const f32, c: *mut f32, first: bool) {
    use std::arch::x86_64::*;
    // SAFETY: lengths are the caller's promise.
    unsafe {
        let mut acc = avx512_load(c, first);
        let rows = *rows.cast::<[*const f32; 12]>();
        for i in 0..k {
            let b0 = _mm512_loadu_ps(panel.add(i * 32));
            let b1 = _mm512_loadu_ps(panel.add(i * 32 + 16));
            for (acc, row) in acc.iter_mut().zip(rows) {
                let a = _mm512_set1_ps(*row.add(i));
                acc[0] = _mm512_fmadd_ps(a, b0, acc[0]);
                acc[1] = _mm512_fmadd_ps(a, b1, acc[1]);
            }
        }
        avx512_store(c, acc);
    }
}

/// x86-64 AVX-512 BF16: products of pairs of bf16, sums in f32, 12 × 32.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512Bf16;

#[cfg(target_arch = "x86_64")]
impl Micro for Avx512Bf16 {
    type E = bf16;
    const MR: usize = 12;
    const NR: usize = 32;
    const PAIR: usize = 2;

    unsafe fn tile(k: usize, rows: *const *const bf16, panel: *const bf16, c: *mut f32, first: bool) {
        // SAFETY: the caller's promise.
        unsafe { avx512_bf16_tile(k, rows, panel, c, first) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_bf16_tile(k: usize, rows: *const *const bf16, panel: *const bf16, c: *mut f32, first: bool) {
    use std::arch::x86_64::*;
    // SAFETY: lengths are the caller's promise. A __m512bh is 512 bits like a __m512i.
    unsafe {
        let mut acc = avx512_load(c, first);
        let rows = *rows.cast::<[*const half::bf16; 12]>();
        for i in (0..k).step_by(2) {
            let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(panel.add(i * 32).cast()));
            let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(panel.add(i * 32 + 32).cast()));
            for (acc, row) in acc.iter_mut().zip(rows) {
                let pair = row.add(i).cast::<i32>().read_unaligned();
                let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                acc[0] = _mm512_dpbf16_ps(acc[0], a, b0);
                acc[1] = _mm512_dpbf16_ps(acc[1], a, b1);
            }
        }
        avx512_store(c, acc);
    }
}
