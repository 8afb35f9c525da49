//! The number formats of networks: `--dtype`.

use calotype_tensor::DType;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The number format of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtypeName {
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
}

impl DtypeName {
    /// The given one, or the one that suits this CPU.
    pub fn or_native(asked: Option<DtypeName>) -> DtypeName {
        let native = if calotype_tensor::cpu::isa().has_bf16() { DtypeName::Bf16 } else { DtypeName::F32 };
        asked.unwrap_or(native)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DtypeName::Bf16 => "bf16",
            DtypeName::F32 => "f32",
        }
    }
}

impl From<DtypeName> for DType {
    fn from(name: DtypeName) -> DType {
        match name {
            DtypeName::Bf16 => DType::BF16,
            DtypeName::F32 => DType::F32,
        }
    }
}
