//! `CLIPTextConfig`, the config of both text encoders.

use std::path::Path;

use calotype_tensor::ops::Activation;
use serde::Deserialize;

use crate::json::{ConfigError, Json, MAX_CHANNELS, MAX_LAYERS};

const MODEL_TYPE: &str = "clip_text_model";

/// A CLIP text encoder's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token embedding table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside an MLP.
    pub intermediate_size: usize,
    /// Channels of the projected pooled output, in the encoder that has a projection.
    pub projection_dim: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest prompt in tokens (77).
    pub max_position_embeddings: usize,
    /// The MLP's activation.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f32,
    /// The token whose state is pooled: the first with this id. If this is 2 (as published with SDXL), the first
    /// of the prompt's largest ids.
    pub eos_token_id: u32,
}

/// A CLIP MLP's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// `x · sigmoid(1.702 x)`
    QuickGelu,
    /// The exact (erf) GELU.
    Gelu,
    /// `max(x, 0)`
    Relu,
}

impl HiddenAct {
    pub(crate) fn activation(self) -> Activation {
        match self {
            Self::QuickGelu => Activation::QuickGelu,
            Self::Gelu => Activation::Gelu,
            Self::Relu => Activation::Relu,
        }
    }
}

/// The fields of the file, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    projection_dim: Option<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: HiddenAct,
    layer_norm_eps: Option<f64>,
    eos_token_id: Option<u32>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: None,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: None,
            eos_token_id: None,
        }
    }
}

impl ClipTextConfig {
    /// Reads the `config.json` of one component's folder.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        Self::from_json(&Json::read(&folder.join("config.json"))?)
    }

    /// Reads and checks the config. An error names the file and the field, and what was expected and found.
    pub(crate) fn from_json(json: &Json) -> Result<Self, ConfigError> {
        // The config of a whole CLIP model contains that of its text encoder.
        match json.nested("text_config") {
            Some(text) if json.value["model_type"] == "clip" => Self::from_flat(&text, MODEL_TYPE),
            _ => Self::from_flat(json, MODEL_TYPE),
        }
    }

    /// The config of an encoder itself, of this `model_type` where it says one.
    pub(super) fn from_flat(json: &Json, model_type: &str) -> Result<Self, ConfigError> {
        json.fixed(&[("model_type", &format!("{model_type:?}"))])?;
        let raw: Raw = json.to()?;
        for (field, value, max) in [
            ("vocab_size", raw.vocab_size, 1 << 24),
            ("hidden_size", raw.hidden_size, MAX_CHANNELS),
            ("intermediate_size", raw.intermediate_size, 4 * MAX_CHANNELS),
            ("projection_dim", raw.projection_dim.unwrap_or(512), MAX_CHANNELS),
            ("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS),
            ("max_position_embeddings", raw.max_position_embeddings, 1 << 14),
        ] {
            json.size(field, value, max)?;
        }
        // Two positions are for the start and the end.
        if raw.max_position_embeddings < 3 {
            let expected = "at least 3 (start, a token, end)";
            return Err(json.fail("max_position_embeddings", expected, raw.max_position_embeddings));
        }
        json.heads_of_any_size("num_attention_heads", raw.num_attention_heads, raw.hidden_size)?;
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            projection_dim: raw.projection_dim.unwrap_or(512),
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            max_position_embeddings: raw.max_position_embeddings,
            hidden_act: raw.hidden_act,
            layer_norm_eps: json.positive("layer_norm_eps", raw.layer_norm_eps.unwrap_or(1e-5))?,
            eos_token_id: raw.eos_token_id.unwrap_or(49407),
        })
    }
}
