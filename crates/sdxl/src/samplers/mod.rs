//! Samplers: from noise to latents, each in a file.
//!
//! A sampler is a row of [`Sampler::ALL`]: its name in requests, the diffusers class whose configuration it reads (with the
//! defaults of that class), the selection of timesteps, and one function. To add a sampler, write its file and add its row.

pub(crate) mod class;
mod config;
mod ddim;
mod dpm_solver;
mod error;
mod euler;
mod euler_ancestral;
mod grid;
mod heun;
mod noise;
mod pndm;
mod prediction;
mod schedule;
mod settings;
mod training;

use std::ops::ControlFlow;

use calotype_tensor::{DType, Tensor};

use config::Presets;
pub use config::SchedulerConfig;
pub use error::ScheduleError;
pub use prediction::Prediction;
use prediction::{clip, combine};
pub use schedule::Schedule;
pub use training::TrainingSchedule;

/// A method that turns noise into latents.
pub struct Sampler {
    /// The name in requests.
    name: &'static str,
    /// The fields of the configuration that the sampler reads, with their defaults.
    class: Presets,
    /// Fields that the sampler sets, whatever the configuration contains.
    forced: Presets,
    grid: grid::MakeGrid,
    /// Whether the latents are x0 + σ·ε, so that the initial noise is scaled. Otherwise they have variance 1.
    scales_noise: bool,
    run: fn(&Schedule, Tensor, &mut Hooks) -> ControlFlow<(), Tensor>,
}

impl Sampler {
    /// All samplers.
    pub const ALL: &'static [Sampler] = &[
        ddim::DDIM,
        dpm_solver::DPM_SOLVER_MULTISTEP,
        heun::HEUN_DISCRETE,
        dpm_solver::KARRAS_DPM,
        euler_ancestral::K_EULER_ANCESTRAL,
        euler::K_EULER,
        pndm::PNDM,
    ];

    /// The sampler with this name in requests.
    ///
    /// # Errors
    /// No sampler has this name. The error lists the available names.
    pub fn find(name: &str) -> Result<&'static Sampler, ScheduleError> {
        let names = || Self::ALL.iter().map(|sampler| sampler.name).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|sampler| sampler.name == name);
        found.ok_or_else(|| ScheduleError::Name { expected: names(), found: name.to_string() })
    }

    /// The published default.
    pub fn k_euler() -> &'static Sampler {
        const K_EULER: &Sampler = &euler::K_EULER;
        K_EULER
    }

    /// The name in requests.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PartialEq for Sampler {
    /// Samplers are equal if their names are.
    fn eq(&self, other: &Sampler) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The callbacks of a sampling. All tensors are latents of the same shape.
pub struct Hooks<'a> {
    /// The network: maps latents and a timestep to the raw output, with guidance applied. The latents are f32, and scaled as in
    /// the network's training. The output may be f32 or bf16.
    pub denoise: &'a mut dyn FnMut(&Tensor, f32) -> Tensor,
    /// Draws new standard normal noise, f32. Samplers that add noise call this once per step.
    pub noise: &'a mut dyn FnMut() -> Tensor,
    /// Called after each step. A break stops the sampling.
    pub on_step: &'a mut dyn FnMut(&Step) -> ControlFlow<()>,
}

/// A step that has been done.
#[derive(Debug)]
pub struct Step<'a> {
    /// The index of the step, from 0.
    pub index: usize,
    /// The number of steps.
    pub total: usize,
    /// The timestep at the start of the step.
    pub timestep: f32,
    /// The latents after the step, in the sampler's own scale.
    pub x: &'a Tensor,
}

/// Runs the schedule on `x`: standard normal noise times [`Schedule::init_noise_sigma`], f32, of any shape. Returns the
/// latents, or breaks if `on_step` does.
pub fn sample(schedule: &Schedule, x: Tensor, hooks: &mut Hooks) -> ControlFlow<(), Tensor> {
    (schedule.sampler().run)(schedule, x, hooks)
}

impl Hooks<'_> {
    /// The network's raw output for latents of variance 1.
    fn output(&mut self, x: &Tensor, timestep: f32) -> Tensor {
        (self.denoise)(x, timestep).to_dtype(DType::F32)
    }

    /// D(x; σ): the clean latents that the network predicts for x = x0 + σ·ε.
    fn denoised(&mut self, schedule: &Schedule, x: &Tensor, sigma: f64, timestep: f32) -> Tensor {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let scaled = combine(&[(alpha, x)]);
        let output = self.output(&scaled, timestep);
        let x0 = schedule.settings.prediction.x0(&scaled, &output, alpha, sigma * alpha);
        clip(x0, schedule.settings.clip)
    }

    fn step_done(&mut self, schedule: &Schedule, index: usize, x: &Tensor) -> ControlFlow<()> {
        let step = Step { index, total: schedule.steps(), timestep: schedule.timesteps[index], x };
        (self.on_step)(&step)
    }
}
