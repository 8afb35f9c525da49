//! The request's `scheduler`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The samplers, by their wire names. The schema has those of the published interface; only the command line takes the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "scheduler")]
#[allow(missing_docs)] // The names say it.
pub enum Scheduler {
    DDIM,
    DPMSolverMultistep,
    HeunDiscrete,
    KarrasDPM,
    #[serde(rename = "K_EULER_ANCESTRAL")]
    KEulerAncestral,
    #[default]
    #[serde(rename = "K_EULER")]
    KEuler,
    PNDM,
    #[schemars(skip)]
    LCM,
    #[schemars(skip)]
    TCD,
    #[schemars(skip)]
    UniPC,
    #[schemars(skip)]
    DPMSolverMultistepSDE,
}

impl Scheduler {
    /// All samplers. The published ones come first, in the published order.
    pub const ALL: [Scheduler; 11] = [
        Scheduler::DDIM,
        Scheduler::DPMSolverMultistep,
        Scheduler::HeunDiscrete,
        Scheduler::KarrasDPM,
        Scheduler::KEulerAncestral,
        Scheduler::KEuler,
        Scheduler::PNDM,
        Scheduler::LCM,
        Scheduler::TCD,
        Scheduler::UniPC,
        Scheduler::DPMSolverMultistepSDE,
    ];

    /// The name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::DDIM => "DDIM",
            Self::DPMSolverMultistep => "DPMSolverMultistep",
            Self::HeunDiscrete => "HeunDiscrete",
            Self::KarrasDPM => "KarrasDPM",
            Self::KEulerAncestral => "K_EULER_ANCESTRAL",
            Self::KEuler => "K_EULER",
            Self::PNDM => "PNDM",
            Self::LCM => "LCM",
            Self::TCD => "TCD",
            Self::UniPC => "UniPC",
            Self::DPMSolverMultistepSDE => "DPMSolverMultistepSDE",
        }
    }
}
