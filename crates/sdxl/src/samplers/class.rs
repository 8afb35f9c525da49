//! diffusers' scheduler classes whose configurations the samplers can read.

use std::path::Path;

use super::ScheduleError;
use super::error::brief;

/// The classes whose noise levels come from betas. The configuration of each of them serves every sampler.
const WITH_BETAS: &[&str] = &[
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

const EDM: &str = "EDM's noise levels, which are not supported";
const FLOW: &str = "flow matching, which is not supported";

/// The methods of other classes, by the beginning of the class name.
const OTHERS: &[(&str, &str)] = &[
    ("EDM", EDM),
    ("CosineDPM", EDM),
    ("FlowMatch", FLOW),
    ("CM", "a consistency model, which is not supported"),
    ("CogVideoX", "a video model's noise levels, which are not supported"),
];

/// Fields that only the other classes have. They identify a file that names no class.
const FIELDS: &[(&str, &str)] = &[("sigma_data", EDM), ("base_shift", FLOW), ("use_dynamic_shifting", FLOW)];

/// Returns an error if the class `name`, which `field` of `file` gives, does not derive its noise levels from betas.
pub(crate) fn check(file: &Path, field: &str, name: &str) -> Result<(), ScheduleError> {
    // The JAX classes have the same configurations.
    if WITH_BETAS.contains(&name.strip_prefix("Flax").unwrap_or(name)) {
        return Ok(());
    }
    let other = OTHERS.iter().find(|(beginning, _)| name.starts_with(beginning));
    let what = other.map_or("not one that is known here", |(_, what)| what);
    Err(refused(file, field, format!("{} ({what})", brief(&name.into()))))
}

/// Returns an error if a file that names no class has a field of a class without betas.
pub(super) fn check_fields(file: &Path, has: impl Fn(&str) -> bool) -> Result<(), ScheduleError> {
    match FIELDS.iter().find(|(field, _)| has(field)) {
        Some((field, what)) => Err(refused(file, "_class_name", format!("none, and {field} ({what})"))),
        None => Ok(()),
    }
}

fn refused(file: &Path, field: &str, found: String) -> ScheduleError {
    let expected =
        "a scheduler whose noise levels come from betas (EulerDiscreteScheduler, DDIMScheduler and the like)";
    ScheduleError::Field {
        file: file.display().to_string(),
        field: field.to_string(),
        expected: expected.to_string(),
        found,
    }
}
