//! Which model makes which steps of a request.

use std::ops::Range;

use crate::error::ArgumentError;
use crate::samplers::{Schedule, ScheduleError, SchedulerConfig};
use crate::{Error, PredictPlan, Refine};

/// The share of the steps of [`Refine::BaseImageRefiner`]: the strength that diffusers' img2img pipeline has for refiners.
const REFINER_STRENGTH: f64 = 0.3;

/// The steps of a request.
pub(super) struct Stages {
    /// The schedule of the base model.
    pub schedule: Schedule,
    /// The base model's steps. Empty: the refiner makes all.
    pub base: Range<usize>,
    /// What the refiner does, if anything.
    pub refiner: Option<Refinement>,
}

/// The steps of the refiner.
pub(super) struct Refinement {
    pub schedule: Schedule,
    pub range: Range<usize>,
    /// Whether the latents get new noise first, as they are finished.
    pub renoise: bool,
}

impl Stages {
    /// The steps of a plan. `refiner` is the refiner's configuration, if there is a refiner.
    ///
    /// # Errors
    /// The configuration is invalid or has fewer steps, the strength leaves no step, or there is no refiner for the plan.
    pub fn of(
        plan: &PredictPlan,
        base: &SchedulerConfig,
        refiner: Option<&SchedulerConfig>,
    ) -> Result<Stages, Error> {
        let base = base.clone().with_spacing(plan.timestep_spacing);
        let schedule = Schedule::new(plan.scheduler, &base, plan.steps)?;
        let all = match plan.image {
            Some(_) => schedule.of_strength(plan.prompt_strength)?,
            None => 0..schedule.steps(),
        };
        let found = refiner.ok_or_else(|| ArgumentError::new("refine", "a refiner for this model", "none"));
        let (base, refiner) = match plan.refine {
            Refine::NoRefiner => (all, None),
            Refine::BaseImageRefiner => (all, Some(Refinement::of_finished(plan, found?)?)),
            Refine::ExpertEnsembleRefiner => {
                let cut = schedule.hand_over(plan.high_noise_frac).clamp(all.start, all.end);
                let rest = Refinement { schedule: schedule.clone(), range: cut..all.end, renoise: false };
                let refiner = if rest.range.is_empty() { None } else { found.map(|_| Some(rest))? };
                if refiner.is_none() && plan.high_noise_frac < 1.0 {
                    let (fraction, steps) = (plan.high_noise_frac, all.len());
                    tracing::warn!(
                        "high_noise_frac {fraction} leaves none of the {steps} steps for the refiner"
                    );
                }
                (all.start..cut, refiner)
            }
        };
        Ok(Stages { schedule, base, refiner })
    }

    /// The first step, of either model.
    pub fn first(&self) -> usize {
        self.base.start
    }

    /// The number of steps of one picture.
    pub fn steps(&self) -> usize {
        self.base.len() + self.refiner.as_ref().map_or(0, |refiner| refiner.range.len())
    }
}

impl Refinement {
    /// The last steps of a schedule of its own, for latents that are finished.
    fn of_finished(plan: &PredictPlan, config: &SchedulerConfig) -> Result<Refinement, Error> {
        let steps = plan.refine_steps.unwrap_or(plan.steps);
        let field = if plan.refine_steps.is_some() { "refine_steps" } else { "num_inference_steps" };
        let config = config.clone().with_spacing(plan.timestep_spacing);
        let schedule = Schedule::new(plan.scheduler, &config, steps).map_err(|e| match e {
            ScheduleError::Steps { expected, found } => {
                Error::from(ArgumentError::new(field, expected, found.to_string()))
            }
            e => e.into(),
        })?;
        let range = schedule.of_strength(REFINER_STRENGTH).map_err(|_| {
            let expected = "at least 4 for base_image_refiner, which makes the last 30 % of them";
            ArgumentError::new(field, expected, steps.to_string())
        })?;
        Ok(Refinement { schedule, range, renoise: true })
    }
}
