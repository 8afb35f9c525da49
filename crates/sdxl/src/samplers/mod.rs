//! Samplers: from noise to latents, one file a sampler.
//!
//! A sampler is a row of [`Sampler::ALL`]: its wire name, the diffusers class whose configuration it reads (with that class's
//! defaults), how it cuts training timesteps into steps, and one function. To add one, write its file and add its row.

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

/// A way to get from noise to latents.
pub struct Sampler {
    /// What requests call it.
    name: &'static str,
    /// The configuration's fields that it reads, with their defaults.
    class: Presets,
    /// Fields that it sets whatever the configuration says.
    forced: Presets,
    grid: grid::MakeGrid,
    /// Whether its latents are x0 + σ·ε, so that the starting noise is scaled; otherwise they have variance 1.
    scales_noise: bool,
    run: fn(&Schedule, Tensor, &mut Hooks) -> ControlFlow<(), Tensor>,
}

impl Sampler {
    /// The samplers there are.
    pub const ALL: &'static [Sampler] = &[
        ddim::DDIM,
        dpm_solver::DPM_SOLVER_MULTISTEP,
        heun::HEUN_DISCRETE,
        dpm_solver::KARRAS_DPM,
        euler_ancestral::K_EULER_ANCESTRAL,
        euler::K_EULER,
        pndm::PNDM,
    ];

    /// The sampler of this wire name.
    ///
    /// # Errors
    /// If there is none; the error lists those there are.
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

    /// The wire name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl PartialEq for Sampler {
    /// Each has a name of its own.
    fn eq(&self, other: &Sampler) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What sampling asks its caller for. All tensors are latents of the same shape.
pub struct Hooks<'a> {
    /// The network: latents and timestep to its raw output, with guidance applied. The latents are f32 and already
    /// scaled as the network was trained to see them; the output may be f32 or bf16.
    pub denoise: &'a mut dyn FnMut(&Tensor, f32) -> Tensor,
    /// Fresh standard normal noise, f32. Asked for once a step by the samplers that add noise.
    pub noise: &'a mut dyn FnMut() -> Tensor,
    /// Told of each step; breaking stops the sampling.
    pub on_step: &'a mut dyn FnMut(&Step) -> ControlFlow<()>,
}

/// A step that is done.
#[derive(Debug)]
pub struct Step<'a> {
    /// Which step, from 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// The timestep that the step started from.
    pub timestep: f32,
    /// The latents after it, in the sampler's own scale.
    pub x: &'a Tensor,
}

/// Runs the schedule on `x`: standard normal noise times [`Schedule::init_noise_sigma`], f32, of any shape. Returns the
/// latents, or breaks where `on_step` does.
pub fn sample(schedule: &Schedule, x: Tensor, hooks: &mut Hooks) -> ControlFlow<(), Tensor> {
    (schedule.sampler().run)(schedule, x, hooks)
}

impl Hooks<'_> {
    /// The network's raw output for latents of variance 1.
    fn output(&mut self, x: &Tensor, timestep: f32) -> Tensor {
        (self.denoise)(x, timestep).to_dtype(DType::F32)
    }

    /// D(x; σ): the clean latents that the network sees in x = x0 + σ·ε.
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
