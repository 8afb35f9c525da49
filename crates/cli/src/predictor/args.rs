//! The options that say how pictures are made.

use std::path::{Path, PathBuf};

use calotype_sdxl::pipeline::{EmptyNegative, Options, Rng};
use calotype_sdxl::prompt::{LongPrompts, PromptSyntax};
use calotype_sdxl::samplers::Spacing;
use clap::{Args, ValueEnum};

use crate::dtype::DtypeName;
use crate::infotext::Maker;
use crate::model::ModelArgs;

/// The options that say how pictures are made, besides the request.
#[derive(Debug, Clone, Args)]
pub struct PredictorArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The refiner, for the field `refine`: a folder, its name on a hub, or a single file [default: SDXL's own, if the model is as large]
    #[arg(long, value_name = "DIR|NAME|FILE")]
    pub refiner: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
    /// Number format of the networks [default: bf16 where the CPU has instructions for it, else f32]
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeName>,
    /// Which of torch's random generators a seed is for
    #[arg(long, value_enum, default_value = "cpu")]
    pub rng: RngName,
    /// What becomes of an empty negative prompt: its encoding, or zeros, as diffusers has it for most models [default: encode]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub empty_negative: Option<EmptyName>,
    /// Which of the training timesteps the steps visit; models for few steps need trailing [default: as the model's scheduler says]
    #[arg(long, value_enum, value_name = "SPACING")]
    pub timestep_spacing: Option<SpacingName>,
    /// What becomes of prompts over 77 tokens: chunks of 75, as in the web UIs, or their end is cut off, as in diffusers
    #[arg(long, value_enum, default_value = "chunk", value_name = "WHAT")]
    pub long_prompts: LongName,
    /// Read (word:1.2), ((word)), [word] and BREAK in prompts as A1111's web UI does; otherwise they are text
    #[arg(long)]
    pub prompt_weights: bool,
    /// Threads to compute with; the pictures are the same for any number [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// A safety checker: its folder as diffusers writes it, that of a model with one, or the name of either on a hub [default:
    /// safety_checker in the model's folder]
    #[arg(long, value_name = "DIR|NAME")]
    pub safety_checker: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RngName {
    Cpu,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmptyName {
    Encode,
    Zeros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpacingName {
    Leading,
    Trailing,
    Linspace,
}

impl From<SpacingName> for Spacing {
    fn from(name: SpacingName) -> Spacing {
        match name {
            SpacingName::Leading => Spacing::Leading,
            SpacingName::Trailing => Spacing::Trailing,
            SpacingName::Linspace => Spacing::Linspace,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LongName {
    Chunk,
    Truncate,
}

impl PredictorArgs {
    /// How the pipeline computes.
    pub fn options(&self) -> Options {
        // The only device.
        let Device::Cpu = self.device;
        Options {
            dtype: DtypeName::or_native(self.dtype).into(),
            rng: match self.rng {
                RngName::Cpu => Rng::Cpu,
                RngName::Cuda => Rng::Cuda,
            },
            empty_negative: match self.empty_negative {
                Some(EmptyName::Zeros) => EmptyNegative::Zeros,
                Some(EmptyName::Encode) | None => EmptyNegative::Encode,
            },
        }
    }

    /// How prompts are read.
    pub fn prompt_syntax(&self) -> PromptSyntax {
        let long = match self.long_prompts {
            LongName::Chunk => LongPrompts::Chunk,
            LongName::Truncate => LongPrompts::Truncate,
        };
        PromptSyntax { long, weights: self.prompt_weights }
    }

    /// What pictures say of their making, with the model in `folder`.
    pub fn maker(&self, folder: &Path) -> Maker {
        Maker {
            model: name_of(self.model.model.as_deref(), folder),
            dtype: DtypeName::or_native(self.dtype).into(),
            rng: match self.rng {
                RngName::Cpu => "cpu",
                RngName::Cuda => "cuda",
            },
            empty_negative: match self.empty_negative {
                Some(EmptyName::Zeros) => "zeros",
                Some(EmptyName::Encode) | None => "encode",
            },
            refiner: None,
        }
    }
}

/// The name of a model: as given if that is a name on a hub, else that of its folder.
pub fn name_of(given: Option<&Path>, folder: &Path) -> String {
    // The full path of a folder given as `.` has its name. A folder of a hub's cache is named by its revision there.
    let full = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let named = || full.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let given = given.filter(|given| *given != folder).and_then(Path::to_str);
    given.map_or_else(named, String::from)
}
