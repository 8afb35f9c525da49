//! Elementary functions without branches, so that the compiler can vectorise loops over them.

use half::bf16;

/// An element that kernels compute with as f32.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    const DTYPE: crate::DType;
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: crate::DType = crate::DType::F32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Element for bf16 {
    const DTYPE: crate::DType = crate::DType::BF16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet_nan = (bits >> 16) | 0x40;
        bf16::from_bits(if x.is_nan() { quiet_nan } else { rounded } as u16)
    }
}

/// a b + c, rounded once where FMA says that it is an instruction, for [`simd_fn!`](super::isa::simd_fn).
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// 2ˣ for x up to 127, to 2 units in the last place; 2⁻¹²⁶ below -126; NaN gives NaN. A polynomial fitted on ±½.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // as in `exp_bounded`
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + MAGIC;
    let f = x - (shifted - MAGIC);
    let mut p = mul_add::<FMA>(1.535_336_2e-4, f, 1.339_887_5e-3);
    for factor in [9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        p = mul_add::<FMA>(p, f, factor);
    }
    let power = (shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits());
    p * f32::from_bits(power)
}

/// eˣ for x from -87.3 to 88.3, to 2 units in the last place (Cephes' polynomial); NaN gives NaN.
///
/// No branches and no overflow checks, which would keep loops from being vectorised; the polynomial is
/// summed in pairs, because such a loop waits for the chain of dependent operations.
#[inline(always)]
fn exp_bounded(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer in the low bits
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let r2 = r * r;
    let low = 0.5 + 1.666_666_5e-1 * r;
    let middle = 4.166_579_6e-2 + 8.333_452e-3 * r;
    let high = 1.398_199_9e-3 + 1.987_569_1e-4 * r;
    let p = low + r2 * (middle + r2 * high);
    // 2ⁿ: the shift moves n to the exponent's bits, and MAGIC's own bits out at the top.
    let power = (shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits());
    ((r2 * p + r) + 1.0) * f32::from_bits(power)
}

/// eˣ for x up to 88.3; 0 below -87; NaN gives NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let y = exp_bounded(if x < -87.0 { -87.0 } else { x });
    if x < -87.0 { 0.0 } else { y }
}

/// 1 / (1 + e⁻ˣ), never below 1e-38.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 87.0 { x } else { 87.0 };
    1.0 / (1.0 + exp_bounded(-x))
}

/// x · sigmoid(x).
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// x · sigmoid(1.702 x), CLIP's activation.
#[inline(always)]
pub(crate) fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

/// x, or 0 where x is less; NaN gives NaN.
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// The error function, to 1.5e-7 (Abramowitz & Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

/// x Φ(x), with the exact Φ (not the tanh approximation).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The derivative of [`silu`].
#[inline(always)]
pub(crate) fn silu_grad(x: f32) -> f32 {
    let s = sigmoid(x);
    s + x * s * (1.0 - s)
}

/// The derivative of [`quick_gelu`].
#[inline(always)]
pub(crate) fn quick_gelu_grad(x: f32) -> f32 {
    let s = sigmoid(1.702 * x);
    s + 1.702 * x * s * (1.0 - s)
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x).
#[inline(always)]
pub(crate) fn gelu_grad(x: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    cdf + x * FRAC_1_SQRT_2PI * exp(-0.5 * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// exp is as exact as f32 allows over its whole range, and right at the edges.
    #[test]
    fn exp_is_exact() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let want = (x as f64).exp();
            assert!(((exp(x) as f64 - want) / want).abs() < 3e-7, "exp({x}) = {}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    /// The activations are those of f64, far out too, and give NaN for NaN.
    #[test]
    fn activations_are_exact() {
        let sigmoid64 = |x: f64| 1.0 / (1.0 + (-x).exp());
        for i in -20_000..20_000 {
            let x = i as f32 * 0.01;
            let wide = f64::from(x);
            let near = |found: f32, want: f64| (f64::from(found) - want).abs() < 1e-6 * want.abs().max(0.5);
            assert!(near(silu(x), wide * sigmoid64(wide)), "silu({x}) = {}", silu(x));
            let want = wide * sigmoid64(1.702 * wide);
            assert!(near(quick_gelu(x), want), "quick_gelu({x}) = {}", quick_gelu(x));
            let derivative = |f: fn(f64) -> f64| (f(wide + 1e-4) - f(wide - 1e-4)) / 2e-4;
            let want = derivative(|x| x / (1.0 + (-x).exp()));
            assert!(near(silu_grad(x), want), "silu'({x}) = {}, {want}", silu_grad(x));
            // gelu has no f64 counterpart in std: its derivative is checked against itself.
            let step = (f64::from(gelu(x + 0.02)) - f64::from(gelu(x - 0.02))) / 0.04;
            assert!((f64::from(gelu_grad(x)) - step).abs() < 3e-4, "gelu'({x}) = {}", gelu_grad(x));
        }
        for f in [silu, quick_gelu, gelu, silu_grad, quick_gelu_grad, gelu_grad] {
            assert!(f(f32::NAN).is_nan());
            assert!(f(3e4).is_finite() && f(-3e4).is_finite());
        }
        let tiny = |y: f32| y <= 0.0 && y > -1e-30;
        assert!(tiny(silu(-1e4)) && tiny(gelu(-1e4)) && tiny(quick_gelu(-1e4)));
    }

    /// Rounding to bf16 equals the `half` crate's, NaN and infinities included.
    #[test]
    fn bf16_rounding() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Element>::from_f32(x), bf16::from_f32(x));
            assert!(ours == theirs || (x.is_nan() && ours.is_nan()), "{x}");
        }
    }
}
