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
mod lcm;
mod noise;
mod pndm;
mod prediction;
mod schedule;
mod settings;
mod spacing;
mod tcd;
mod training;
mod unipc;

use std::ops::{ControlFlow, Range};

use calotype_tensor::{DType, Tensor};

use config::Presets;
pub use config::SchedulerConfig;
pub use error::ScheduleError;
pub use prediction::Prediction;
use prediction::{clip, combine};
pub use schedule::Schedule;
pub use spacing::Spacing;
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
    run: fn(&Schedule, Range<usize>, Tensor, &mut Hooks) -> ControlFlow<(), Tensor>,
}

impl Sampler {
    /// All samplers. The first seven are those of the published interface.
    pub const ALL: &'static [Sampler] = &[
        ddim::DDIM,
        dpm_solver::DPM_SOLVER_MULTISTEP,
        heun::HEUN_DISCRETE,
        dpm_solver::KARRAS_DPM,
        euler_ancestral::K_EULER_ANCESTRAL,
        euler::K_EULER,
        pndm::PNDM,
        lcm::LCM,
        tcd::TCD,
        unipc::UNIPC,
        dpm_solver::DPM_SOLVER_MULTISTEP_SDE,
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

    /// Whether the sampler chooses its timesteps by a [`Spacing`].
    fn has_spacing(&self) -> bool {
        let has = |presets: Presets, key: &str| presets.iter().any(|(name, _)| *name == key);
        has(self.class, "timestep_spacing") && !has(self.forced, "use_karras_sigmas")
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
    /// Replaces latents, which inpainting uses: called with the latents after a step, in the sampler's own scale, and the level that
    /// they have (1 to [`Schedule::steps`], of [`Schedule::add_noise`]). Returns the latents to continue with. HeunDiscrete, and
    /// PNDM in the first step of a range, also call this for the prediction at which they run the network a second time.
    pub constrain: &'a mut dyn FnMut(Tensor, usize) -> Tensor,
    /// Called after each step, and after `constrain`. A break stops the sampling.
    pub on_step: &'a mut dyn FnMut(&Step) -> ControlFlow<()>,
}

/// A step that has been done.
#[derive(Debug)]
pub struct Step<'a> {
    /// The index of the step in the schedule, from 0.
    pub index: usize,
    /// The number of steps of the schedule.
    pub total: usize,
    /// The timestep at the start of the step.
    pub timestep: f32,
    /// The latents after the step, in the sampler's own scale.
    pub x: &'a Tensor,
    /// The clean latents that the network predicted in this step.
    pub x0: &'a Tensor,
}

/// Runs the steps `range` of the schedule on `x`, f32, of any shape. Returns the latents after the range, or breaks if `on_step`
/// does. An empty range returns `x`.
///
/// `x` has the noise of the first step of the range:
/// - from nothing, `0..schedule.steps()`: standard normal noise times [`Schedule::init_noise_sigma`];
/// - from a picture, [`Schedule::of_strength`]: [`Schedule::add_noise`] of the picture's latents at `range.start`;
/// - from another range that ended where this range starts: the result of that range, unchanged.
///
/// A range starts without the history of the steps before it: multistep methods gather their history anew.
///
/// ```
/// # use std::ops::ControlFlow;
/// # use calotype_sdxl::samplers::{Hooks, Sampler, Schedule, SchedulerConfig, sample};
/// # use calotype_tensor::Tensor;
/// # let config = SchedulerConfig::parse("", "{}").expect("an object");
/// # let (picture, noise) = (Tensor::from_vec(vec![1.0], &[1]), Tensor::from_vec(vec![1.0], &[1]));
/// // The base runs the noisier steps, the refiner the others.
/// let schedule = Schedule::new(Sampler::k_euler(), &config, 50).expect("a schedule");
/// let range = schedule.of_strength(0.6).expect("at least a step"); // 20..50
/// let cut = schedule.hand_over(0.8).clamp(range.start, range.end);
/// let mut x = schedule.add_noise(&picture, &noise, range.start);
/// for (network, range) in [("base", range.start..cut), ("refiner", cut..range.end)] {
///     # let _ = network;
///     let mut hooks = Hooks {
///         denoise: &mut |x, _timestep| x.clone(), // the network's output
///         noise: &mut || noise.clone(),
///         constrain: &mut |x, _level| x,
///         on_step: &mut |_step| ControlFlow::Continue(()),
///     };
///     match sample(&schedule, range, x, &mut hooks) {
///         ControlFlow::Continue(latents) => x = latents,
///         ControlFlow::Break(()) => return,
///     }
/// }
/// ```
///
/// # Panics
/// The range ends after the last step.
pub fn sample(
    schedule: &Schedule,
    range: Range<usize>,
    x: Tensor,
    hooks: &mut Hooks,
) -> ControlFlow<(), Tensor> {
    assert!(range.end <= schedule.steps(), "steps {range:?} of {}", schedule.steps());
    (schedule.sampler().run)(schedule, range, x, hooks)
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

    /// The latents of a level, after [`constrain`](Self::constrain).
    fn constrained(&mut self, x: Tensor, level: usize) -> Tensor {
        (self.constrain)(x, level)
    }

    /// Ends the step `index` with the latents `x`, and the clean latents `x0` that the network predicted. Returns the latents that the
    /// next step starts with.
    fn step_done(
        &mut self,
        schedule: &Schedule,
        index: usize,
        x: Tensor,
        x0: &Tensor,
    ) -> ControlFlow<(), Tensor> {
        let x = self.constrained(x, index + 1);
        let (total, timestep) = (schedule.steps(), schedule.timesteps[index]);
        (self.on_step)(&Step { index, total, timestep, x: &x, x0 })?;
        ControlFlow::Continue(x)
    }
}
