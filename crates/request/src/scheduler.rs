//! The request's `scheduler`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The samplers of the published interface, by their wire names.
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
}

impl Scheduler {
    /// All samplers, in the published order.
    pub const ALL: [Scheduler; 7] = [
        Scheduler::DDIM,
        Scheduler::DPMSolverMultistep,
        Scheduler::HeunDiscrete,
        Scheduler::KarrasDPM,
        Scheduler::KEulerAncestral,
        Scheduler::KEuler,
        Scheduler::PNDM,
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
        }
    }
}
