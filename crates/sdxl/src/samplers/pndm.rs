//! PNDM: a linear multistep method. By diffusers' default, it begins with three Runge-Kutta steps of four network runs each.
//! With `skip_prk_steps`, as in SDXL's configuration, it begins with one step of second order.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Fields, Preset, Presets};
use super::grid::Grid;
use super::prediction::combine;
use super::settings::SamplerSettings;
use super::{Hooks, Sampler, Schedule, ScheduleError, grid};

/// The sampler's row of the table.
pub(super) const PNDM: Sampler =
    Sampler { name: "PNDM", class: DEFAULTS, forced: &[], grid: make_grid, scales_noise: false, run: sample };

/// diffusers' `PNDMScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("skip_prk_steps", Preset::Flag(false)),
    ("set_alpha_to_one", Preset::Flag(false)),
    ("prediction_type", Preset::Text("epsilon")),
    ("timestep_spacing", Preset::Text("leading")),
    ("steps_offset", Preset::Int(0)),
];

/// Runge-Kutta steps before the multistep method has enough outputs.
const WARM_UP: usize = 3;

fn make_grid(settings: &SamplerSettings, fields: &Fields, steps: usize) -> Result<Grid, ScheduleError> {
    if !settings.skip_prk_steps && steps <= WARM_UP {
        let expected = "at least 4 (the scheduler's skip_prk_steps is false)".to_string();
        return Err(ScheduleError::Steps { expected, found: steps });
    }
    grid::of_alphas(settings, fields, steps)
}

/// Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2022), algorithm 2.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    let warm_up = range.start + if schedule.settings.skip_prk_steps { 0 } else { WARM_UP };
    let mut e = Vec::new(); // the network's last outputs, newest last
    for i in range {
        let t = schedule.timesteps[i];
        if e.len() == 4 {
            e.remove(0);
        }
        let output = hooks.output(&x, t);
        let (from, to) = (t as i64, t as i64 - schedule.settings.stride);
        let (alpha, sigma) = schedule.alpha_sigma(from);
        let x0 = schedule.settings.prediction.x0(&x, &output, alpha, sigma);
        e.push(output);
        x = match e.as_slice() {
            [.., e0] if i < warm_up && i + 1 < schedule.steps() => runge_kutta(schedule, &x, i, e0, hooks),
            [e0] => second_order_start(schedule, &x, i, e0, hooks),
            [e1, e0] => transfer(schedule, &x, from, to, &[(3.0 / 2.0, e0), (-1.0 / 2.0, e1)]),
            [e2, e1, e0] => {
                transfer(schedule, &x, from, to, &[(23.0 / 12.0, e0), (-16.0 / 12.0, e1), (5.0 / 12.0, e2)])
            }
            [e3, e2, e1, e0, ..] => {
                let weighted = [(55.0 / 24.0, e0), (-59.0 / 24.0, e1), (37.0 / 24.0, e2), (-9.0 / 24.0, e3)];
                transfer(schedule, &x, from, to, &weighted)
            }
            [] => x,
        };
        x = hooks.step_done(schedule, i, x, &x0)?;
    }
    ControlFlow::Continue(x)
}

/// Equation 13: a step of fourth order. `e1` is the output at the start of the step. The latents in the middle of the step have the
/// noise of no level of the schedule, so that [`Hooks::constrain`] does not see them.
fn runge_kutta(schedule: &Schedule, x: &Tensor, i: usize, e1: &Tensor, hooks: &mut Hooks) -> Tensor {
    let half = schedule.settings.stride / 2;
    let (from, to) = (schedule.timesteps[i] as i64, schedule.timesteps[i + 1] as i64);
    let middle = to + half;
    let x1 = transfer(schedule, x, from, from - half, &[(1.0, e1)]);
    let e2 = hooks.output(&x1, middle as f32);
    let x2 = transfer(schedule, x, from, middle, &[(1.0, &e2)]);
    let e3 = hooks.output(&x2, middle as f32);
    let x3 = transfer(schedule, x, from, to, &[(1.0, &e3)]);
    let e4 = hooks.output(&x3, to as f32);
    transfer(schedule, x, from, to, &[(1.0 / 6.0, e1), (1.0 / 3.0, &e2), (1.0 / 3.0, &e3), (1.0 / 6.0, &e4)])
}

/// The first step without Runge-Kutta: a step down, then the same step again with the mean of the outputs at both ends.
fn second_order_start(schedule: &Schedule, x: &Tensor, i: usize, e0: &Tensor, hooks: &mut Hooks) -> Tensor {
    let (t, stride) = (schedule.timesteps[i] as i64, schedule.settings.stride);
    let down = transfer(schedule, x, t, t - stride, &[(1.0, e0)]);
    let Some(&next) = schedule.timesteps.get(i + 1) else { return down };
    let down = hooks.constrained(down, i + 1);
    let e_next = hooks.output(&down, next);
    transfer(schedule, x, next as i64 + stride, next as i64, &[(0.5, e0), (0.5, &e_next)])
}

/// Equation 11, φ: moves `x` from one timestep to another along a weighted sum of outputs.
fn transfer(schedule: &Schedule, x: &Tensor, from: i64, to: i64, outputs: &[(f64, &Tensor)]) -> Tensor {
    let (a, b) = (schedule.alpha_bar(from), schedule.alpha_bar(to));
    let output = combine(outputs);
    let epsilon = schedule.settings.prediction.epsilon(x, &output, a.sqrt(), (1.0 - a).sqrt());
    let denominator = a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt();
    combine(&[((b / a).sqrt(), x), (-(b - a) / denominator, &epsilon)])
}
