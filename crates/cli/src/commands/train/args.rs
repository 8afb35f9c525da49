//! The options of the command line besides the request's fields.

use std::path::PathBuf;

use calotype_request::InputError;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::commands::networks::NetworkArgs;
use crate::dtype::DtypeName;
use crate::model::ModelArgs;

/// What is not part of the request.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Number format of the networks; what trains is f32 [default: bf16 where the CPU has instructions for it, else f32]
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeName>,
    /// Threads to compute with; the result is the same for any number [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Folder for everything about the run [default: runs/<name of the set>, with -2, -3 … where it is there]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run_dir: Option<PathBuf>,
    /// Go on with the run in this folder, with its own settings
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// The trained weights; an earlier file of this name is replaced [default: trained_model.tar in the run's folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Whether to compute activations again on the way back rather than to keep them: less memory, more time, the same
    /// result [default: auto, where memory would not do]
    #[arg(long, value_enum)]
    pub recompute: Option<Recompute>,
    /// Make pictures with what was learnt, every N steps, into samples/
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample_every: Option<u32>,
    /// What these pictures show; may be given several times [default: the caption prefix]
    #[arg(long, value_name = "TEXT")]
    pub sample_prompt: Vec<String>,
    /// Measure the loss on the same noise, before the first step and every N steps [default: checkpointing_steps; with --stop auto
    /// a fortieth of the steps, if that is less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub validate_every: Option<u32>,
    /// How many of the last checkpoints stay [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_checkpoints: Option<u32>,
    /// Also keep a checkpoint where so many seconds have passed since the last; the result is the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub checkpoint_seconds: Option<u32>,
    /// Write steps, seconds and bytes that the training would take into a file, as JSON, instead of training
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "resume")]
    pub forecast: Option<PathBuf>,
    /// End when stdin is closed: whoever has started the run is gone
    #[arg(long, hide = true)]
    pub end_with_stdin: bool,
    #[command(flatten)]
    pub networks: NetworkArgs,
    #[command(flatten)]
    pub options: OptionFlags,
}

/// The settings of a training beyond the published interface; a flag each.
#[derive(Debug, Args)]
#[command(next_help_heading = "Beyond the fields")]
pub struct OptionFlags {
    /// Batches whose gradients are added up before each step [default: 1]
    #[arg(long, value_name = "N")]
    gradient_accumulation_steps: Option<u64>,
    /// The norm that gradients are clipped to, all together; 0: they are not [default: 1; adafactor does not clip]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_grad_norm: Option<f64>,
    /// γ of min-SNR weighting, such as 5 [default: none]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    min_snr_gamma: Option<f64>,
    /// How much of the noise is the same all over a channel, such as 0.05 [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    noise_offset: Option<f64>,
    /// How often a caption is left out, 0 to 1 [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    caption_dropout: Option<f64>,
    /// Train the new tokens' embeddings alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    textual_inversion_only: Option<bool>,
    /// Which optimizer: adamw or adafactor [default: adamw, and adafactor for a full fine-tune]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Which layers of the UNet get LoRA: the projections of its attentions, or all linear layers and convolutions
    /// [default: attention]
    #[arg(long, value_enum, value_name = "LAYERS")]
    lora_layers: Option<LoraLayersName>,
    /// Whether the training ends before its last step, when the validation loss has stopped falling, with the weights that had the
    /// lowest [default: off]
    #[arg(long, value_enum, value_name = "WHEN")]
    stop: Option<StopName>,
}

/// When a training ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum StopName {
    /// After its last step
    Off,
    /// When the validation loss has stopped falling, at the latest after its last step
    Auto,
}

/// The layers that get LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum LoraLayersName {
    Attention,
    All,
}

/// Whether activations are computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    Auto,
    On,
    Off,
}

impl OptionFlags {
    /// The given settings, by the names of `TrainOptions`.
    ///
    /// # Errors
    /// A number is not finite.
    pub fn given(&self) -> Result<Map<String, Value>, InputError> {
        let mut given = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                given.insert(name.into(), value);
            }
        };
        set("gradient_accumulation_steps", self.gradient_accumulation_steps.map(Value::from));
        for (name, number) in [
            ("max_grad_norm", self.max_grad_norm),
            ("min_snr_gamma", self.min_snr_gamma),
            ("noise_offset", self.noise_offset),
            ("caption_dropout", self.caption_dropout),
        ] {
            // JSON has no such numbers.
            if let Some(number) = number.filter(|number| !number.is_finite()) {
                return Err(InputError::value(name, "a number", number.to_string()));
            }
            set(name, number.map(|number| json!(number)));
        }
        set("textual_inversion_only", self.textual_inversion_only.map(Value::from));
        set("optimizer", self.optimizer.clone().map(Value::from));
        set("stop", self.stop.map(|stop| json!(stop)));
        set("lora_layers", self.lora_layers.map(|layers| json!(layers)));
        Ok(given)
    }
}
