//! K_EULER: Euler's method on the probability-flow ODE in σ.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const K_EULER: Sampler = Sampler {
    name: "K_EULER",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_sigmas,
    scales_noise: true,
    run: sample,
};

/// diffusers' `EulerDiscreteScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("prediction_type", Preset::Text("epsilon")),
    ("interpolation_type", Preset::Text("linear")),
    ("use_karras_sigmas", Preset::Flag(false)),
    ("use_exponential_sigmas", Preset::Flag(false)),
    ("use_beta_sigmas", Preset::Flag(false)),
    ("sigma_min", Preset::Null),
    ("sigma_max", Preset::Null),
    ("timestep_spacing", Preset::Text("linspace")),
    ("timestep_type", Preset::Text("discrete")),
    ("steps_offset", Preset::Int(0)),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
    ("final_sigmas_type", Preset::Text("zero")),
];

/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 1 without its
/// second-order correction.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    for i in range {
        let (sigma, sigma_next) = (schedule.sigmas[i], schedule.sigmas[i + 1]);
        let denoised = hooks.denoised(schedule, &x, sigma, schedule.timesteps[i]);
        let d = combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        x = combine(&[(1.0, &x), (sigma_next - sigma, &d)]);
        x = hooks.step_done(schedule, i, x, &denoised)?;
    }
    ControlFlow::Continue(x)
}
