//! DPMSolverMultistep, KarrasDPM and DPMSolverMultistepSDE: an exponential integrator that extrapolates from the last two predictions.

use std::ops::{ControlFlow, Range};

use calotype_tensor::Tensor;

use super::config::{Preset, Presets};
use super::prediction::combine;
use super::settings::FinalSigma;
use super::{Hooks, Sampler, Schedule, grid};

/// The sampler's row of the table.
pub(super) const DPM_SOLVER_MULTISTEP: Sampler = Sampler {
    name: "DPMSolverMultistep",
    class: DEFAULTS,
    forced: &[],
    grid: grid::of_dpm_solver,
    scales_noise: false,
    run: sample,
};

/// The sampler's row of the table. The same solver on the noise levels of Karras et al. (2022).
pub(super) const KARRAS_DPM: Sampler = Sampler {
    name: "KarrasDPM",
    forced: &[("use_karras_sigmas", Preset::Flag(true))],
    ..DPM_SOLVER_MULTISTEP
};

/// The sampler's row of the table. The same solver for the stochastic differential equation, known as DPM++ 2M SDE.
pub(super) const DPM_SOLVER_MULTISTEP_SDE: Sampler = Sampler {
    name: "DPMSolverMultistepSDE",
    forced: &[("algorithm_type", Preset::Text("sde-dpmsolver++"))],
    ..DPM_SOLVER_MULTISTEP
};

/// diffusers' `DPMSolverMultistepScheduler`, and the two sigmas that its Karras schedule also reads.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("solver_order", Preset::Int(2)),
    ("prediction_type", Preset::Text("epsilon")),
    ("thresholding", Preset::Flag(false)),
    ("algorithm_type", Preset::Text("dpmsolver++")),
    ("solver_type", Preset::Text("midpoint")),
    ("lower_order_final", Preset::Flag(true)),
    ("euler_at_final", Preset::Flag(false)),
    ("use_karras_sigmas", Preset::Flag(false)),
    ("use_exponential_sigmas", Preset::Flag(false)),
    ("use_beta_sigmas", Preset::Flag(false)),
    ("use_lu_lambdas", Preset::Flag(false)),
    ("use_flow_sigmas", Preset::Flag(false)),
    ("final_sigmas_type", Preset::Text("zero")),
    ("lambda_min_clipped", Preset::Null),
    ("variance_type", Preset::Null),
    ("timestep_spacing", Preset::Text("linspace")),
    ("steps_offset", Preset::Int(0)),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
    ("sigma_min", Preset::Null),
    ("sigma_max", Preset::Null),
];

/// Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models" (2022), algorithm 2, and
/// its stochastic form with new noise in each step.
fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    mut x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    let mut previous: Option<(Tensor, f64)> = None;
    for i in range {
        let ((alpha_s, sigma_s, lambda_s), (alpha_t, sigma_t, lambda_t)) =
            (schedule.variance_preserving(i), schedule.variance_preserving(i + 1));
        let output = hooks.output(&x, schedule.timesteps[i]);
        let x0 = schedule.settings.prediction.x0(&x, &output, alpha_s, sigma_s);
        let h = lambda_t - lambda_s;
        let d = match &previous {
            Some((x0_previous, lambda_previous)) if !first_order(schedule, i) => {
                let r = (lambda_s - lambda_previous) / h;
                combine(&[(1.0 + 0.5 / r, &x0), (-0.5 / r, x0_previous)])
            }
            _ => x0.clone(),
        };
        x = if schedule.settings.stochastic {
            let variance = -(-2.0 * h).exp_m1(); // of the new noise, as a share of σ²
            let kept = sigma_t / sigma_s * (-h).exp();
            // The noise of the last step may have weight 0, but is drawn as in diffusers.
            let noise = (hooks.noise)();
            combine(&[(kept, &x), (alpha_t * variance, &d), (sigma_t * variance.sqrt(), &noise)])
        } else {
            combine(&[(sigma_t / sigma_s, &x), (-alpha_t * (-h).exp_m1(), &d)])
        };
        x = hooks.step_done(schedule, i, x, &x0)?;
        previous = Some((x0, lambda_s));
    }
    ControlFlow::Continue(x)
}

/// Whether a step is of first order. The last step is, if it ends without noise (λ = ∞), and for stability in
/// short schedules.
fn first_order(schedule: &Schedule, i: usize) -> bool {
    let settings = &schedule.settings;
    let stable = settings.euler_at_final || settings.lower_order_final && schedule.steps() < 15;
    let last = i + 1 == schedule.steps();
    settings.solver_order == 1 || last && (stable || settings.final_sigma == FinalSigma::Zero)
}
