//! UniPC: a multistep predictor, and a corrector that uses the network's next output without a run of its own.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::settings::FinalSigma;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const UNIPC: Sampler = Sampler {
    name: "UniPC",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_dpm_solver,
    scales_noise: false,
    run: sample,
};

/// diffusers' `UniPCMultistepScheduler`.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("solver_order", Preset::Int(2)),
    ("prediction_type", Preset::Text("epsilon")),
    ("thresholding", Preset::Flag(false)),
    ("predict_x0", Preset::Flag(true)),
    ("solver_type", Preset::Text("bh2")),
    ("lower_order_final", Preset::Flag(true)),
    ("disable_corrector", Preset::Null),
    ("use_karras_sigmas", Preset::Flag(false)),
    ("use_exponential_sigmas", Preset::Flag(false)),
    ("use_beta_sigmas", Preset::Flag(false)),
    ("use_flow_sigmas", Preset::Flag(false)),
    ("timestep_spacing", Preset::Text("linspace")),
    ("steps_offset", Preset::Int(0)),
    ("final_sigmas_type", Preset::Text("zero")),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
    ("sigma_min", Preset::Null),
    ("sigma_max", Preset::Null),
];

/// Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models" (2023), algorithms 5 and 6
/// (multistep, data prediction), of order 1 or 2.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    let mut outputs: Vec<Tensor> = Vec::new(); // the predicted clean latents of the last two steps, newest last
    let mut started: Option<(Tensor, usize)> = None; // the latents at the start of the last step, and its order
    for i in range {
        let output = hooks.output(&x, schedule.timesteps[i]);
        let (alpha, sigma, _) = schedule.variance_preserving(i);
        let x0 = schedule.settings.prediction.x0(&x, &output, alpha, sigma);
        if let Some((start, order)) = &started {
            x = step(schedule, i - 1, *order, start, &outputs, Some(&x0));
        }
        if outputs.len() == 2 {
            outputs.remove(0);
        }
        outputs.push(x0.clone());
        let order = order(schedule, i).min(outputs.len());
        started = Some((x.clone(), order));
        x = step(schedule, i, order, &x, &outputs, None);
        x = hooks.step_done(schedule, i, x, &x0)?;
    }
    ControlFlow::Continue(x)
}

/// The order of a step that has enough outputs before it.
fn order(schedule: &Schedule, i: usize) -> usize {
    let settings = &schedule.settings;
    let last = i + 1 == schedule.steps();
    // A step to no noise (λ = ∞) has no second order.
    if last && (settings.lower_order_final || settings.final_sigma == FinalSigma::Zero) {
        1
    } else {
        settings.solver_order
    }
}

/// Step `i` from the latents `x` at its start. With `x0_end`, the clean latents predicted at its end, this is the corrector.
/// Otherwise it is the predictor.
fn step(
    schedule: &Schedule,
    i: usize,
    order: usize,
    x: &Tensor,
    outputs: &[Tensor],
    x0_end: Option<&Tensor>,
) -> Tensor {
    let (_, sigma_s, lambda_s) = schedule.variance_preserving(i);
    let (alpha_t, sigma_t, lambda_t) = schedule.variance_preserving(i + 1);
    let h = lambda_t - lambda_s;
    let phi_1 = (-h).exp_m1();
    let b = if schedule.settings.bh1 { -h } else { phi_1 };
    let x0 = &outputs[outputs.len() - 1];
    let mut terms = vec![(sigma_t / sigma_s, x)];
    let mut of_x0 = -alpha_t * phi_1;
    // The weights of the differences to the output before, and to the output at the end.
    let (before, end) = weights(schedule, i, order, h, b, x0_end.is_some());
    if order == 2 {
        terms.push((-alpha_t * before, &outputs[outputs.len() - 2]));
        of_x0 += alpha_t * before;
    }
    if let Some(x0_end) = x0_end {
        terms.push((-alpha_t * end, x0_end));
        of_x0 += alpha_t * end;
    }
    terms.push((of_x0, x0));
    combine(&terms)
}

/// B(h) · ρ / r of the output before, and B(h) · ρ of the output at the end.
fn weights(schedule: &Schedule, i: usize, order: usize, h: f64, b: f64, corrects: bool) -> (f64, f64) {
    if order == 1 {
        return (0.0, b / 2.0);
    }
    let lambda = |i: usize| schedule.variance_preserving(i).2;
    let r = (lambda(i - 1) - lambda(i)) / h;
    if !corrects {
        return (b / 2.0 / r, 0.0);
    }
    // ρ solves ρ₁ + ρ₂ = g₁ and r ρ₁ + ρ₂ = g₂. Here it is multiplied by B(h).
    let phi_2 = (-h).exp_m1() / -h - 1.0;
    let g_1 = phi_2;
    let g_2 = (phi_2 / -h - 0.5) * 2.0;
    let rho_1 = (g_1 - g_2) / (1.0 - r);
    (rho_1 / r, g_1 - rho_1)
}
