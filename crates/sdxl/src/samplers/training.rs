//! The noise schedule of a network's training, read from its sampler's configuration as diffusers' `DDPMScheduler` does.

use super::config::{Fields, Preset, Presets, SchedulerConfig};
use super::prediction::Prediction;
use super::schedule::MAX_TRAIN_TIMESTEPS;
use super::{ScheduleError, noise};

/// The noise schedule that a network is trained with, and the quantity that it learns to predict.
#[derive(Debug, Clone)]
pub struct TrainingSchedule {
    /// ᾱ of every training timestep.
    pub alphas_cumprod: Vec<f32>,
    /// The quantity that the network predicts.
    pub prediction: Prediction,
}

/// diffusers' `DDPMScheduler`, without the fields that only sampling reads.
const DEFAULTS: Presets = &[
    ("num_train_timesteps", Preset::Int(1000)),
    ("beta_start", Preset::Float(0.0001)),
    ("beta_end", Preset::Float(0.02)),
    ("beta_schedule", Preset::Text("linear")),
    ("trained_betas", Preset::Null),
    ("prediction_type", Preset::Text("epsilon")),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
];

/// The predictions that SDXL models are trained for.
const PREDICTIONS: &[(&str, Prediction)] =
    &[("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::V)];

impl TrainingSchedule {
    /// Reads the schedule from a configuration.
    ///
    /// # Errors
    /// If a field is invalid or asks for something unsupported.
    pub fn read(config: &SchedulerConfig) -> Result<TrainingSchedule, ScheduleError> {
        let fields = Fields { config, class: DEFAULTS, forced: &[] };
        let train = fields.integer("num_train_timesteps", (1, MAX_TRAIN_TIMESTEPS))?;
        let zero_snr = fields.flag("rescale_betas_zero_snr")?;
        Ok(TrainingSchedule {
            alphas_cumprod: noise::alphas_cumprod(&fields, train, zero_snr)?,
            prediction: fields.choice("prediction_type", PREDICTIONS)?,
        })
    }
}
