//! The noise levels that a sampler visits: a selection of the training timesteps.

use super::config::{Fields, SchedulerConfig};
use super::error::brief;
use super::settings::{SamplerSettings, Spacing};
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

    /// The factor of the standard normal noise that sampling starts from.
    pub fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
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
