//! The signal that is left at each training timestep, as diffusers computes it. The computation is in f32: at early timesteps 1
//! − ᾱ has only four digits, so the rounding is part of the schedule.

use super::ScheduleError;
use super::config::Fields;

#[derive(Clone, Copy)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    Cosine,
}

/// ᾱ_t for each training timestep, decreasing, in (0, 1). With `zero_snr`, the last one is 0.
///
/// # Errors
/// The betas are out of range or leave no signal at some timestep.
pub(super) fn alphas_cumprod(
    fields: &Fields,
    train: usize,
    zero_snr: bool,
) -> Result<Vec<f32>, ScheduleError> {
    let betas = betas(fields, train)?;
    let mut alphas_cumprod = cumprod(betas.iter().map(|beta| 1.0 - beta));
    if zero_snr {
        alphas_cumprod = rescale_zero_terminal_snr(&alphas_cumprod);
    }
    let last = alphas_cumprod.len() - 1;
    let valid = |(t, a): (usize, &f32)| *a > 0.0 && *a < 1.0 || zero_snr && t == last && *a == 0.0;
    match alphas_cumprod.iter().enumerate().position(|item| !valid(item)) {
        None => Ok(alphas_cumprod),
        Some(t) => Err(fields.wrong(
            "beta_schedule",
            "betas that leave signal and noise at every timestep (alphas_cumprod between 0 and 1)",
            format!("alphas_cumprod {} at timestep {t}", alphas_cumprod[t]),
        )),
    }
}

fn betas(fields: &Fields, train: usize) -> Result<Vec<f32>, ScheduleError> {
    let (expected, valid) = ("a number between 0 and 1", |beta| beta > 0.0 && beta < 1.0);
    if let Some(betas) = fields.numbers("trained_betas", expected, valid)? {
        if betas.len() != train {
            let expected = format!("{train} numbers, one for each of num_train_timesteps");
            return Err(fields.wrong("trained_betas", expected, format!("{} numbers", betas.len())));
        }
        return Ok(betas.into_iter().map(|beta| beta as f32).collect());
    }
    let schedule = fields.choice(
        "beta_schedule",
        &[
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::Cosine),
        ],
    )?;
    let (start, end) =
        (fields.required("beta_start", expected, valid)?, fields.required("beta_end", expected, valid)?);
    Ok(match schedule {
        BetaSchedule::Linear => linspace(start as f32, end as f32, train),
        BetaSchedule::ScaledLinear => linspace(start.sqrt() as f32, end.sqrt() as f32, train)
            .into_iter()
            .map(|root| root * root)
            .collect(),
        BetaSchedule::Cosine => cosine(train),
    })
}

/// Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), equation 17.
fn cosine(train: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let at = |i: usize| alpha_bar(i as f64 / train as f64);
    (0..train).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

/// Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2023), algorithm 1.
fn rescale_zero_terminal_snr(alphas_cumprod: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = alphas_cumprod.iter().map(|a| a.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let bars: Vec<f32> =
        roots.iter().map(|root| ((root - last) * (first / (first - last))).powi(2)).collect();
    // diffusers converts to betas here and back to ᾱ, and the roundings matter.
    let alphas = (0..bars.len()).map(|t| if t == 0 { bars[0] } else { bars[t] / bars[t - 1] });
    cumprod(alphas.map(|alpha| 1.0 - (1.0 - alpha)))
}

/// `torch.cumprod` of f32 values, which accumulates in f64.
fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let product = |product: &mut f64, value: f32| {
        *product *= f64::from(value);
        Some(*product as f32)
    };
    values.scan(1.0, product).collect()
}

/// `torch.linspace` in f32, which fills from both ends with fused multiply-adds.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    let value = |i: usize| match i {
        _ if n == 1 => start,
        _ if i < n / 2 => step.mul_add(i as f32, start),
        _ => (-step).mul_add((n - 1 - i) as f32, end),
    };
    (0..n).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::{Sampler, SchedulerConfig};

    /// Protects the roundings: ᾱ of every timestep equals that of diffusers to the last bit.
    #[test]
    fn alphas_cumprod_equal_diffusers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdxl/tests/golden/samplers.safetensors");
        let bytes = std::fs::read(path).expect("golden file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("golden file");
        for (name, schedule, zero_snr) in [
            ("sdxl", "scaled_linear", false),
            ("linear", "linear", false),
            ("squaredcos", "squaredcos_cap_v2", false),
            ("zero_snr", "scaled_linear", true),
        ] {
            let text =
                format!(r#"{{"beta_schedule": "{schedule}", "beta_start": 0.00085, "beta_end": 0.012}}"#);
            let config = SchedulerConfig::parse("", &text).expect("JSON");
            let class = Sampler::find("DDIM").expect("DDIM").class;
            let ours = alphas_cumprod(&Fields { config: &config, class, forced: &[] }, 1000, zero_snr);
            let golden = file.tensor(&format!("alphas_cumprod.{name}")).expect("golden tensor");
            // Rescaling takes square roots, which torch leaves to MKL. They are not always correctly rounded.
            let tolerance = if zero_snr { 5e-7 } else { 0.0 };
            for (t, (a, b)) in ours.expect("valid").iter().zip(golden.data().chunks_exact(4)).enumerate() {
                let b = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                assert!((a - b).abs() <= tolerance, "{name} at timestep {t}: expected {b}, found {a}");
            }
        }
    }
}
