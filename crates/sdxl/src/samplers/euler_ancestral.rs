//! K_EULER_ANCESTRAL: Euler steps to a lower noise level, and new noise after each.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const K_EULER_ANCESTRAL: Sampler = Sampler {
    name: "K_EULER_ANCESTRAL",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_sigmas,
    scales_noise: true,
    run: sample,
};

/// diffusers' `EulerAncestralDiscreteScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("prediction_type", Preset::Text("epsilon")),
    ("timestep_spacing", Preset::Text("linspace")),
    ("steps_offset", Preset::Int(0)),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
];

/// Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations" (2020), ancestral sampling
/// (appendix F), in Crowson's form with η = 1.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    for i in range {
        let (sigma, sigma_next) = (schedule.sigmas[i], schedule.sigmas[i + 1]);
        let denoised = hooks.denoised(schedule, &x, sigma, schedule.timesteps[i]);
        let sigma_up = sigma_next / sigma * (sigma * sigma - sigma_next * sigma_next).max(0.0).sqrt();
        let sigma_down = (sigma_next * sigma_next - sigma_up * sigma_up).max(0.0).sqrt();
        let d = combine(&[(1.0 / sigma, &x), (-1.0 / sigma, &denoised)]);
        // The noise of the last step has weight 0, but is drawn as in diffusers.
        x = combine(&[(1.0, &x), (sigma_down - sigma, &d), (sigma_up, &(hooks.noise)())]);
        x = hooks.step_done(schedule, i, x, &denoised)?;
    }
    ControlFlow::Continue(x)
}
