//! The quantity that the network predicts, and its conversion to clean latents and noise.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{lincomb, scale};

/// The meaning of the network's output for latents x = α·x0 + σ·ε with α² + σ² = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// v = α·ε - σ·x0: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022).
    V,
    /// The clean latents x0.
    Sample,
}

impl Prediction {
    /// The names in configurations.
    pub(super) const NAMES: &[(&str, Prediction)] = &[
        ("epsilon", Prediction::Epsilon),
        ("v_prediction", Prediction::V),
        ("sample", Prediction::Sample),
        ("original_sample", Prediction::Sample),
    ];

    /// x0, given latents and the network's output for them.
    pub(super) fn x0(self, x: &Tensor, output: &Tensor, alpha: f64, sigma: f64) -> Tensor {
        match self {
            Prediction::Epsilon => combine(&[(1.0 / alpha, x), (-sigma / alpha, output)]),
            Prediction::V => combine(&[(alpha, x), (-sigma, output)]),
            Prediction::Sample => output.clone(),
        }
    }

    /// ε, given latents and the network's output for them.
    pub(super) fn epsilon(self, x: &Tensor, output: &Tensor, alpha: f64, sigma: f64) -> Tensor {
        match self {
            Prediction::Epsilon => output.clone(),
            Prediction::V => combine(&[(alpha, output), (sigma, x)]),
            Prediction::Sample => combine(&[(1.0 / sigma, x), (-alpha / sigma, output)]),
        }
    }
}

/// The sum of tensors times factors. Factors are computed in f64 and rounded to f32.
pub(super) fn combine(terms: &[(f64, &Tensor)]) -> Tensor {
    let terms: Vec<(f32, &Tensor)> = terms.iter().map(|(factor, tensor)| (*factor as f32, *tensor)).collect();
    match terms[..] {
        [(factor, tensor)] => scale(tensor, factor),
        _ => lincomb(&terms),
    }
}

/// `x` with its values clamped to ±`range`. `None`: `x` unchanged.
pub(super) fn clip(x: Tensor, range: Option<f32>) -> Tensor {
    match range {
        None => x,
        Some(range) => {
            let clamped: Vec<f32> = x.to_vec().into_iter().map(|value| value.clamp(-range, range)).collect();
            x.device().upload(&clamped, x.shape())
        }
    }
}
