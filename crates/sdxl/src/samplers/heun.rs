//! HeunDiscrete: Euler steps, each corrected with the slope at its end. Each step runs the network twice, the last step once.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const HEUN_DISCRETE: Sampler = Sampler {
    name: "HeunDiscrete",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_sigmas,
    scales_noise: true,
    run: sample,
};

/// diffusers' `HeunDiscreteScheduler`, and the two sigmas that its Karras schedule also reads.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.00085)),
    ("beta_end", Preset::Float(0.012)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("prediction_type", Preset::Text("epsilon")),
    ("use_karras_sigmas", Preset::Flag(false)),
    ("use_exponential_sigmas", Preset::Flag(false)),
    ("use_beta_sigmas", Preset::Flag(false)),
    ("clip_sample", Preset::Flag(false)),
    ("clip_sample_range", Preset::Float(1.0)),
    ("timestep_spacing", Preset::Text("linspace")),
    ("steps_offset", Preset::Int(0)),
    ("sigma_min", Preset::Null),
    ("sigma_max", Preset::Null),
];

/// Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), algorithm 1.
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
        let dt = sigma_next - sigma;
        let x_next = combine(&[(1.0, &x), (dt, &d)]);
        x = if i + 1 == schedule.steps() {
            x_next
        } else {
            let x_next = hooks.constrained(x_next, i + 1);
            let denoised = hooks.denoised(schedule, &x_next, sigma_next, schedule.timesteps[i + 1]);
            let d_next = combine(&[(1.0 / sigma_next, &x_next), (-1.0 / sigma_next, &denoised)]);
            combine(&[(1.0, &x), (dt / 2.0, &d), (dt / 2.0, &d_next)])
        };
        x = hooks.step_done(schedule, i, x, &denoised)?;
    }
    ControlFlow::Continue(x)
}
