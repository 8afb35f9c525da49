//! Timesteps and σ for a number of steps, with the roundings of numpy and diffusers.

use super::ScheduleError;
use super::config::Fields;
use super::prediction::Prediction;
use super::settings::{FinalSigma, Karras, SamplerSettings};
use super::spacing::Spacing;

/// The points that a sampler visits, highest noise first.
pub(super) struct Grid {
    pub(super) timesteps: Vec<f32>,
    pub(super) sigmas: Vec<f64>,
}

/// Makes a sampler's [`Grid`] for a number of steps.
pub(super) type MakeGrid = fn(&SamplerSettings, &Fields, usize) -> Result<Grid, ScheduleError>;

/// For samplers that work in σ. Timesteps may be fractions, and σ is interpolated between timesteps.
pub(super) fn of_sigmas(settings: &SamplerSettings, _: &Fields, steps: usize) -> Result<Grid, ScheduleError> {
    let table = train_sigmas(settings);
    let mut timesteps = match settings.spacing {
        Spacing::Linspace => reversed_linspace(table.len(), steps),
        Spacing::Leading => leading(table.len() / steps, steps, settings.steps_offset),
        Spacing::Trailing => trailing(table.len(), table.len(), steps),
    };
    // diffusers rounds timesteps to f32 before it looks up σ.
    timesteps.iter_mut().for_each(|t| *t = f64::from(*t as f32));
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(*t, &table)).collect();
    if let Some(karras) = settings.karras {
        sigmas = karras_sigmas(karras, sigmas[0], sigmas[steps - 1], steps);
        timesteps = sigmas.iter().map(|sigma| sigma_to_t(*sigma, &table)).collect();
    }
    Ok(grid(timesteps, sigmas, &table, settings.final_sigma))
}

/// For DPM-Solver and UniPC. Timesteps are whole, and the noise-free timestep is left out.
pub(super) fn of_dpm_solver(
    settings: &SamplerSettings,
    _: &Fields,
    steps: usize,
) -> Result<Grid, ScheduleError> {
    let table = train_sigmas(settings);
    // λ = −ln σ rises towards timestep 0, so the clipped timesteps are the last.
    let last = table.iter().filter(|sigma| -f64::from(**sigma).ln() >= settings.lambda_min).count();
    let mut timesteps = match settings.spacing {
        Spacing::Linspace => reversed_linspace(last, steps + 1),
        Spacing::Leading => leading(last / (steps + 1), steps + 1, settings.steps_offset),
        Spacing::Trailing => trailing(last, table.len(), steps),
    };
    timesteps.truncate(steps);
    timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| interpolate(*t, &table)).collect();
    if let Some(karras) = settings.karras {
        sigmas = karras_sigmas(karras, table[table.len() - 1].into(), table[0].into(), steps);
        let t = |sigma: &f64| sigma_to_t(*sigma, &table);
        // With cosine betas, diffusers' DPM-Solver truncates instead.
        timesteps = sigmas
            .iter()
            .map(t)
            .map(|t| if settings.cosine { t.trunc() } else { t.round_ties_even() })
            .collect();
    }
    // A multistep solver divides by the distance between its steps.
    if sigmas.is_empty() || sigmas.windows(2).any(|pair| pair[0] == pair[1]) {
        let expected = format!("fewer steps, for {} training timesteps to lie between", table.len());
        return Err(ScheduleError::Steps { expected, found: steps });
    }
    Ok(grid(timesteps, sigmas, &table, settings.final_sigma))
}

/// For samplers that work in ᾱ. Timesteps are whole training timesteps.
pub(super) fn of_alphas(
    settings: &SamplerSettings,
    fields: &Fields,
    steps: usize,
) -> Result<Grid, ScheduleError> {
    let train = settings.alphas_cumprod.len();
    let mut timesteps = match settings.spacing {
        Spacing::Linspace => reversed_linspace(train, steps),
        Spacing::Leading => leading(train / steps, steps, settings.steps_offset),
        Spacing::Trailing => trailing(train, train, steps),
    };
    timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
    let first = timesteps[0] as usize;
    if first >= train {
        let expected = format!("at most {} for {steps} steps", settings.steps_offset - (first - (train - 1)));
        return Err(fields.wrong("steps_offset", expected, settings.steps_offset));
    }
    whole(settings, fields, timesteps)
}

/// For samplers of distilled models: a selection of the timesteps that the distillation used.
pub(super) fn of_distilled(
    settings: &SamplerSettings,
    fields: &Fields,
    steps: usize,
) -> Result<Grid, ScheduleError> {
    let train = settings.alphas_cumprod.len();
    let original = fields.integer("original_inference_steps", (1, train as u64))?;
    if steps > original {
        let expected = format!("1 to {original} (the scheduler's original_inference_steps)");
        return Err(ScheduleError::Steps { expected, found: steps });
    }
    let distance = original as f64 / steps as f64;
    let timestep = |i: usize| (original - (i as f64 * distance).floor() as usize) * (train / original) - 1;
    whole(settings, fields, (0..steps).map(|i| timestep(i) as f64).collect())
}

/// The grid of whole timesteps, for samplers that work in ᾱ.
fn whole(settings: &SamplerSettings, fields: &Fields, timesteps: Vec<f64>) -> Result<Grid, ScheduleError> {
    if settings.alphas_cumprod[timesteps[0] as usize] == 0.0 && settings.prediction == Prediction::Epsilon {
        let expected = "v_prediction, since rescale_betas_zero_snr leaves no signal at the first step";
        return Err(fields.wrong("prediction_type", expected, "epsilon"));
    }
    Ok(Grid { timesteps: timesteps.into_iter().map(|t| t as f32).collect(), sigmas: Vec::new() })
}

fn grid(timesteps: Vec<f64>, mut sigmas: Vec<f64>, table: &[f32], end: FinalSigma) -> Grid {
    sigmas.push(match end {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table[0].into(),
    });
    Grid {
        timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
        sigmas: sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect(),
    }
}

/// σ = √((1 − ᾱ) / ᾱ) of every training timestep. Without any signal, diffusers assumes ᾱ = 2⁻²⁴, which can be more than at the
/// timestep before.
fn train_sigmas(settings: &SamplerSettings) -> Vec<f32> {
    let some_signal = |alpha_bar: f32| if alpha_bar == 0.0 { 1.0 / 16_777_216.0 } else { alpha_bar };
    let sigma = |alpha_bar: f32| ((1.0 - alpha_bar) / alpha_bar).sqrt();
    settings.alphas_cumprod.iter().map(|alpha_bar| sigma(some_signal(*alpha_bar))).collect()
}

/// `np.linspace(0, train - 1, points)[::-1]`
fn reversed_linspace(train: usize, points: usize) -> Vec<f64> {
    let last = train.saturating_sub(1) as f64;
    let step = last / (points.max(2) - 1) as f64;
    let value = |i: usize| if i > 0 && i == points - 1 { last } else { i as f64 * step };
    (0..points).rev().map(value).collect()
}

/// Multiples of `ratio`, plus `offset`, in descending order.
fn leading(ratio: usize, points: usize, offset: usize) -> Vec<f64> {
    (0..points).rev().map(|i| (i * ratio + offset) as f64).collect()
}

/// `np.arange(last, 0, -train / steps).round() - 1`. For some numbers of steps (61 of 1000), numpy's rounding errors give one
/// more value, timestep −1. It is left out here.
fn trailing(last: usize, train: usize, steps: usize) -> Vec<f64> {
    let last = last as f64;
    // np.arange computes its step from the first two values.
    let step = (last - train as f64 / steps as f64) - last;
    let values = (0..steps).map(|i| (last + i as f64 * step).round_ties_even() - 1.0);
    values.take_while(|t| *t >= 0.0).collect()
}

/// `np.interp(t, arange, table)`
fn interpolate(t: f64, table: &[f32]) -> f64 {
    let low = t.floor() as usize;
    if low + 1 >= table.len() {
        return table[table.len() - 1].into();
    }
    let (a, b) = (f64::from(table[low]), f64::from(table[low + 1]));
    (b - a) * (t - low as f64) + a
}

/// Karras et al. (2022), equation 5, with ρ = 7.
fn karras_sigmas(ends: Karras, max: f64, min: f64, steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let max = ends.sigma_max.unwrap_or(max).powf(1.0 / RHO);
    let min = ends.sigma_min.unwrap_or(min).powf(1.0 / RHO);
    let ramp = |i: usize| i as f64 / (steps.max(2) - 1) as f64;
    (0..steps).map(|i| (max + ramp(i) * (min - max)).powf(RHO)).collect()
}

/// The timestep that has this σ, interpolated in ln σ.
fn sigma_to_t(sigma: f64, table: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let not_above = table.iter().rposition(|s| f64::from(s.ln()) <= log_sigma).unwrap_or(0);
    let low = not_above.min(table.len().saturating_sub(2));
    let Some(next) = table.get(low + 1) else { return 0.0 };
    let (a, b) = (table[low].ln(), next.ln());
    let w = ((f64::from(a) - log_sigma) / f64::from(a - b)).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * (low + 1) as f64
}
