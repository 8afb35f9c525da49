//! LCM: jumps to the clean latents, and back to the next noise level with new noise.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::{clip, combine};
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const LCM: Sampler = Sampler {
    name: "LCM",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_distilled,
    scales_noise: false,
    run: sample,
};

/// diffusers' `LCMScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.00085)),
    ("beta_end", Preset::Float(0.012)),
    ("beta_schedule", Preset::Text("scaled_linear")),
    ("trained_betas", Preset::Null),
    ("original_inference_steps", Preset::Int(50)),
    ("clip_sample", Preset::Flag(false)),
    ("clip_sample_range", Preset::Float(1.0)),
    ("prediction_type", Preset::Text("epsilon")),
    ("thresholding", Preset::Flag(false)),
    ("timestep_scaling", Preset::Float(10.0)),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
];

/// The standard deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

/// Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference" (2023), algorithm 3.
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
        let x0 = clip(settings.prediction.x0(&x, &output, alpha, sigma), settings.clip);
        // The boundary condition: without noise, the latents are their own prediction.
        let scaled = f64::from(t) * settings.timestep_scaling;
        let squared = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let denoised = combine(&[(scaled / squared.sqrt(), &x0), (SIGMA_DATA * SIGMA_DATA / squared, &x)]);
        x = if i + 1 < schedule.steps() {
            schedule.add_noise(&denoised, &(hooks.noise)(), i + 1)
        } else {
            denoised.clone()
        };
        x = hooks.step_done(schedule, i, x, &denoised)?;
    }
    ControlFlow::Continue(x)
}
