//! A scheduler's configuration, with every field checked and resolved.

use super::config::Fields;
use super::prediction::Prediction;
use super::spacing::Spacing;
use super::{ScheduleError, noise};

/// The configuration's fields, resolved for the sampler's class.
#[derive(Debug, Clone)]
pub(super) struct SamplerSettings {
    /// ᾱ of every training timestep.
    pub(super) alphas_cumprod: Vec<f32>,
    /// Whether ᾱ is 1 after the last step. Otherwise it is that of timestep 0.
    pub(super) set_alpha_to_one: bool,
    /// Training timesteps from one step to the next.
    pub(super) stride: i64,
    pub(super) prediction: Prediction,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: usize,
    pub(super) karras: Option<Karras>,
    pub(super) final_sigma: FinalSigma,
    /// The limit ± to which predicted clean latents are clamped.
    pub(super) clip: Option<f32>,
    /// 1 or 2.
    pub(super) solver_order: usize,
    pub(super) lower_order_final: bool,
    pub(super) euler_at_final: bool,
    /// Timesteps whose log-SNR is lower are left out.
    pub(super) lambda_min: f64,
    /// Whether DPM-Solver adds new noise in each step.
    pub(super) stochastic: bool,
    /// Whether UniPC's B(h) is h. Otherwise it is eʰ − 1.
    pub(super) bh1: bool,
    /// LCM's factor of timesteps in its boundary condition.
    pub(super) timestep_scaling: f64,
    /// TCD's share of new noise, 0 to 1.
    pub(super) eta: f64,
    /// Whether PNDM skips its Runge-Kutta warm-up.
    pub(super) skip_prk_steps: bool,
    /// Whether DPM-Solver's betas are those of `squaredcos_cap_v2`.
    pub(super) cosine: bool,
}

/// σ after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// The ends of the Karras schedule, if the configuration sets them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Karras {
    pub(super) sigma_min: Option<f64>,
    pub(super) sigma_max: Option<f64>,
}

impl SamplerSettings {
    pub(super) fn read(
        fields: &Fields,
        train: usize,
        steps: usize,
    ) -> Result<SamplerSettings, ScheduleError> {
        refuse_unsupported(fields)?;
        let zero_snr = fields.flag("rescale_betas_zero_snr")?;
        Ok(SamplerSettings {
            alphas_cumprod: noise::alphas_cumprod(fields, train, zero_snr)?,
            set_alpha_to_one: fields.flag("set_alpha_to_one")?,
            stride: (train / steps) as i64,
            prediction: fields.choice("prediction_type", Prediction::NAMES)?,
            spacing: fields.choice("timestep_spacing", Spacing::NAMES)?,
            steps_offset: fields.integer("steps_offset", (0, train as u64))?,
            karras: karras(fields)?,
            final_sigma: fields.choice("final_sigmas_type", FinalSigma::NAMES)?,
            clip: clip(fields)?,
            solver_order: fields.integer("solver_order", (1, 2))?,
            lower_order_final: fields.flag("lower_order_final")?,
            euler_at_final: fields.flag("euler_at_final")?,
            lambda_min: fields
                .number("lambda_min_clipped", "a number", |_| true)?
                .unwrap_or(f64::NEG_INFINITY),
            skip_prk_steps: fields.flag("skip_prk_steps")?,
            stochastic: fields.is("algorithm_type", "sde-dpmsolver++"),
            bh1: fields.is("solver_type", "bh1"),
            timestep_scaling: fields
                .number("timestep_scaling", "a positive number", |factor| factor > 0.0)?
                .unwrap_or(1.0),
            eta: fields
                .number("eta", "a number from 0 to 1", |eta| (0.0..=1.0).contains(&eta))?
                .unwrap_or(0.0),
            cosine: fields.has("algorithm_type") && fields.is("beta_schedule", "squaredcos_cap_v2"),
        })
    }
}

impl FinalSigma {
    const NAMES: &[(&str, FinalSigma)] = &[("zero", FinalSigma::Zero), ("sigma_min", FinalSigma::SigmaMin)];
}

fn karras(fields: &Fields) -> Result<Option<Karras>, ScheduleError> {
    let end = |key| fields.number(key, "a positive number or null", |sigma| sigma > 0.0);
    let karras = Karras { sigma_min: end("sigma_min")?, sigma_max: end("sigma_max")? };
    Ok(fields.flag("use_karras_sigmas")?.then_some(karras))
}

fn clip(fields: &Fields) -> Result<Option<f32>, ScheduleError> {
    if !fields.flag("clip_sample")? {
        return Ok(None);
    }
    let range = fields.required("clip_sample_range", "a positive number", |range| range > 0.0)?;
    Ok(Some(range as f32))
}

/// Options of diffusers that no published SDXL model needs. They are refused rather than ignored.
fn refuse_unsupported(fields: &Fields) -> Result<(), ScheduleError> {
    let flags =
        ["thresholding", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"];
    for key in flags {
        if fields.flag(key)? {
            return Err(fields.wrong(key, "false", "true"));
        }
    }
    fields.choice("interpolation_type", &[("linear", ())])?;
    fields.choice("timestep_type", &[("discrete", ())])?;
    // diffusers also replaces deis and the other solver types by these.
    fields.choice("algorithm_type", &[("dpmsolver++", ()), ("deis", ()), ("sde-dpmsolver++", ())])?;
    fields.choice("solver_type", &[("midpoint", ()), ("logrho", ()), ("bh1", ()), ("bh2", ())])?;
    if fields.has("predict_x0") && !fields.flag("predict_x0")? {
        return Err(fields.wrong("predict_x0", "true", "false"));
    }
    let disabled = fields.numbers("disable_corrector", "a step", |_| true)?.unwrap_or_default();
    if !disabled.is_empty() {
        return Err(fields.wrong("disable_corrector", "no steps", format!("{} steps", disabled.len())));
    }
    for learned in ["learned", "learned_range"] {
        if fields.is("variance_type", learned) {
            return Err(fields.wrong("variance_type", "null", learned));
        }
    }
    Ok(())
}
