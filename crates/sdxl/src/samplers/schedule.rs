//! The noise levels that a sampler visits: a selection of the training timesteps.

use std::ops::Range;

use calotype_tensor::Tensor;

use super::config::{Fields, SchedulerConfig};
use super::error::brief;
use super::prediction::combine;
use super::settings::SamplerSettings;
use super::spacing::Spacing;
use super::{Sampler, ScheduleError};

/// More timesteps than any diffusion model has, and few enough to be exact in f32.
pub(super) const MAX_TRAIN_TIMESTEPS: u64 = 100_000;

/// A sampler, configured for a number of steps. Each request makes one; sampling does not change it.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub(super) sampler: &'static Sampler,
    /// The timestep that the network is given in each step, highest noise first.
    pub(super) timesteps: Vec<f32>,
    /// σ before each step and after the last (one more than `timesteps`), for x = x0 + σ·ε. Empty for samplers that work in ᾱ.
    pub(super) sigmas: Vec<f64>,
    pub(super) settings: SamplerSettings,
    init_noise_sigma: f32,
}

impl Schedule {
    /// Configures `sampler` by `config` for `steps` steps.
    ///
    /// # Errors
    /// A field is invalid or asks for something unsupported, or the schedule cannot have that many steps.
    pub fn new(
        sampler: &'static Sampler,
        config: &SchedulerConfig,
        steps: usize,
    ) -> Result<Schedule, ScheduleError> {
        let fields = Fields { config, class: sampler.class, forced: sampler.forced };
        let train = fields.integer("num_train_timesteps", (1, MAX_TRAIN_TIMESTEPS))?;
        if steps < 1 || steps > train {
            let expected = format!("1 to {train} (the scheduler's num_train_timesteps)");
            return Err(ScheduleError::Steps { expected, found: steps });
        }
        if let Some(spacing) = config.spacing.filter(|_| !sampler.has_spacing()) {
            let (sampler, found) = (sampler.name.to_string(), spacing.name().to_string());
            return Err(ScheduleError::Spacing { sampler, found });
        }
        let settings = SamplerSettings::read(&fields, train, steps)?;
        for (key, value) in fields.ignored() {
            let (file, name) = (fields.file(), sampler.name);
            tracing::warn!("{file}: {key}: {} is not used, as {name} has no such setting", brief(value));
        }
        let grid = (sampler.grid)(&settings, &fields, steps)?;
        let max = grid.sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match settings.spacing {
            _ if !sampler.scales_noise => 1.0,
            Spacing::Linspace | Spacing::Trailing => max as f32,
            Spacing::Leading => (max * max + 1.0).sqrt() as f32,
        };
        Ok(Schedule { sampler, timesteps: grid.timesteps, sigmas: grid.sigmas, settings, init_noise_sigma })
    }

    /// The sampler of this schedule.
    pub fn sampler(&self) -> &'static Sampler {
        self.sampler
    }

    /// The number of steps: the requested number, or less if the configuration has a `lambda_min_clipped`. Some samplers run
    /// the network more than once per step.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The timestep at the start of each step, highest noise first.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The steps of a picture that is made from another: the last ⌊steps · strength⌋. The strength is the share of the steps, from
    /// 0 to 1, not of the noise.
    ///
    /// # Errors
    /// The strength leaves no step. The error gives the smallest strength that does.
    pub fn of_strength(&self, strength: f64) -> Result<Range<usize>, ScheduleError> {
        let steps = self.steps();
        // Rounds towards 0 as Python's `int` does: 50 · 0.58 leaves 28 steps, not 29. NaN leaves none.
        let left = |strength: f64| ((steps as f64 * strength) as usize).min(steps);
        if left(strength) > 0 {
            return Ok(steps - left(strength)..steps);
        }
        let mut candidates = (1..=10_000).map(|i| f64::from(i) / 10_000.0);
        let least = candidates.find(|strength| left(*strength) > 0).unwrap_or(1.0);
        Err(ScheduleError::Strength { least: least.to_string(), steps, found: strength.to_string() })
    }

    /// The step at which the base hands the latents over to a refiner that is trained for the less noisy timesteps: the base runs
    /// the steps before it, the refiner this step and those after it. `high_noise_frac`, from 0 to 1, is the share of the training
    /// timesteps that the base is for. 1: the base runs all steps. 0: the refiner does.
    pub fn hand_over(&self, high_noise_frac: f64) -> usize {
        let train = self.settings.alphas_cumprod.len() as f64;
        let cutoff = (train - high_noise_frac * train).round_ties_even();
        self.timesteps.iter().take_while(|t| f64::from(**t) >= cutoff).count()
    }

    /// Latents `x0` with the noise of a level, in the sampler's own scale. `noise` is standard normal. Level i is the noise at the
    /// start of step i, of timestep `timesteps()[i]`. The level after the last step, `steps()`, is `x0` itself.
    ///
    /// # Panics
    /// The shapes differ, or the level is greater than [`steps`](Self::steps).
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor, level: usize) -> Tensor {
        if level == self.steps() {
            return x0.clone();
        }
        let (alpha, sigma) = match self.sigmas.get(level) {
            None => self.alpha_sigma(self.timesteps[level] as i64),
            Some(sigma) if self.sampler.scales_noise => (1.0, *sigma),
            Some(_) => {
                let (alpha, sigma, _) = self.variance_preserving(level);
                (alpha, sigma)
            }
        };
        combine(&[(alpha, x0), (sigma, noise)])
    }

    /// The selection of timesteps. `None`: the sampler has timesteps of its own.
    pub fn timestep_spacing(&self) -> Option<Spacing> {
        self.sampler.has_spacing().then_some(self.settings.spacing)
    }

    /// The factor of the standard normal noise that sampling starts from.
    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    /// α, σ and λ = ln(α/σ) at a level, of latents scaled to variance 1. For samplers with sigmas.
    pub(super) fn variance_preserving(&self, level: usize) -> (f64, f64, f64) {
        let sigma = self.sigmas[level];
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        (alpha, sigma * alpha, -sigma.ln())
    }

    /// α = √ᾱ and σ = √(1 − ᾱ) at a timestep: the shares of the clean latents and of the noise in latents of variance 1.
    pub(super) fn alpha_sigma(&self, timestep: i64) -> (f64, f64) {
        let alpha_bar = self.alpha_bar(timestep);
        (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())
    }

    /// ᾱ at a timestep. Timesteps after the last step are negative.
    pub(super) fn alpha_bar(&self, timestep: i64) -> f64 {
        let settings = &self.settings;
        match usize::try_from(timestep) {
            Ok(t) => settings.alphas_cumprod[t].into(),
            Err(_) if settings.set_alpha_to_one => 1.0,
            Err(_) => settings.alphas_cumprod[0].into(),
        }
    }
}
