//! TCD: DDIM steps that go below the next noise level, and new noise up to that level.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const TCD: Sampler = Sampler {
    name: "TCD",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_distilled,
    scales_noise: false,
    run: sample,
};

/// diffusers' `TCDScheduler`, and `eta`, which is an argument of its `step`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.00085)),
    ("beta_end", Preset::Float(0.012)),
    ("beta_schedule", Preset::Text("scaled_linear")),
    ("trained_betas", Preset::Null),
    ("original_inference_steps", Preset::Int(50)),
    ("prediction_type", Preset::Text("epsilon")),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
    ("eta", Preset::Float(0.3)),
];

/// Zheng et al., "Trajectory Consistency Distillation" (2024), algorithm 4. The paper calls `eta` γ.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    let settings = &schedule.settings;
    for i in range {
        let t = schedule.timesteps[i];
        let next = schedule.timesteps.get(i + 1).copied();
        // Rounded as torch rounds a tensor of integers times a float.
        let s = ((1.0 - settings.eta) as f32 * next.unwrap_or(0.0)).floor();
        let output = hooks.output(&x, t);
        let (alpha, sigma) = schedule.alpha_sigma(t as i64);
        let (alpha_s, sigma_s) = schedule.alpha_sigma(s as i64);
        let x0 = settings.prediction.x0(&x, &output, alpha, sigma);
        let epsilon = settings.prediction.epsilon(&x, &output, alpha, sigma);
        x = combine(&[(alpha_s, &x0), (sigma_s, &epsilon)]);
        if let Some(next) = next.filter(|_| settings.eta > 0.0) {
            let kept = schedule.alpha_bar(next as i64) / schedule.alpha_bar(s as i64);
            x = combine(&[(kept.sqrt(), &x), ((1.0 - kept).sqrt(), &(hooks.noise)())]);
        }
        x = hooks.step_done(schedule, i, x, &x0)?;
    }
    ControlFlow::Continue(x)
}
