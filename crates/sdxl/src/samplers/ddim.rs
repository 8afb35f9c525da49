//! DDIM: a step to the predicted clean latents, and back to the next noise level with the same noise.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::{clip, combine};
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const DDIM: Sampler = Sampler {
    name: "DDIM",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_alphas,
    scales_noise: false,
    run: sample,
};

/// diffusers' `DDIMScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("clip_sample", Preset::Flag(true)),
    ("set_alpha_to_one", Preset::Flag(true)),
    ("steps_offset", Preset::Int(0)),
    ("prediction_type", Preset::Text("epsilon")),
    ("thresholding", Preset::Flag(false)),
    ("clip_sample_range", Preset::Float(1.0)),
    ("timestep_spacing", Preset::Text("leading")),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
];

/// Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2020), equation 12 with σ = 0.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    let settings = &schedule.settings;
    for i in range {
        let t = schedule.timesteps[i];
        let output = hooks.output(&x, t);
        let (alpha, sigma) = schedule.alpha_sigma(t as i64);
        let (alpha_prev, sigma_prev) = schedule.alpha_sigma(t as i64 - settings.stride);
        let x0 = clip(settings.prediction.x0(&x, &output, alpha, sigma), settings.clip);
        let epsilon = settings.prediction.epsilon(&x, &output, alpha, sigma);
        x = combine(&[(alpha_prev, &x0), (sigma_prev, &epsilon)]);
        x = hooks.step_done(schedule, i, x, &x0)?;
    }
    ControlFlow::Continue(x)
}
