//! `BlipConfig`, the config of BLIP: a vision tower and a text decoder.

use std::path::Path;

use serde::Deserialize;

use super::HiddenAct;
use super::clip_vision::{MAX_SIDE, check_patches};
use crate::json::{ConfigError, Json, MAX_CHANNELS, MAX_LAYERS};

/// The class of transformers that writes captions.
const CLASS: &str = "BlipForConditionalGeneration";

/// BLIP's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipConfig {
    /// `vision_config`.
    pub vision: BlipVisionConfig,
    /// `text_config`.
    pub text: BlipTextConfig,
}

/// The vision tower's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipVisionConfig {
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside an MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The side of the square pictures, in pixels.
    pub image_size: usize,
    /// The side of the square patches, in pixels.
    pub patch_size: usize,
    /// The MLP's activation.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f32,
}

/// The text decoder's sizes and tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipTextConfig {
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside an MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// The activation of the MLP and of the head.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f32,
    /// The token that a caption begins with.
    pub bos_token_id: u32,
    /// The token that ends a caption.
    pub sep_token_id: u32,
    /// The token that fills up shorter captions of a batch.
    pub pad_token_id: Option<u32>,
    /// Whether the head has the word embeddings as its matrix, unless the checkpoint has another.
    pub tie_word_embeddings: bool,
}

/// The fields of `vision_config`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: HiddenAct,
    layer_norm_eps: f64,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// The fields of `text_config`, with transformers' defaults: 8 heads, where the published models have 12.
#[derive(Deserialize)]
#[serde(default)]
struct RawText {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: HiddenAct,
    layer_norm_eps: f64,
    bos_token_id: Option<u32>,
    sep_token_id: Option<u32>,
    pad_token_id: Option<u32>,
    tie_word_embeddings: bool,
}

impl Default for RawText {
    fn default() -> Self {
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: Some(30522),
            sep_token_id: Some(102),
            pad_token_id: Some(0),
            tie_word_embeddings: true,
        }
    }
}

impl BlipConfig {
    /// Reads the `config.json` of a folder.
    ///
    /// # Errors
    /// The file is missing or invalid, or the config of another model.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let json = Json::read(&folder.join("config.json"))?;
        json.class(CLASS, "blip")?;
        let mut text = text(&json.nested_or_empty("text_config")?)?;
        // Each of the model and its decoder may ask for it.
        let tied = |field| json.value.get(field).is_none_or(|tied| tied.as_bool() != Some(false));
        text.tie_word_embeddings |= tied("tie_word_embeddings");
        Ok(Self { vision: vision(&json.nested_or_empty("vision_config")?)?, text })
    }
}

fn vision(json: &Json) -> Result<BlipVisionConfig, ConfigError> {
    json.fixed(&[("model_type", "\"blip_vision_model\""), ("num_channels", "3")])?;
    let raw: RawVision = json.to()?;
    for (field, value, max) in [
        ("hidden_size", raw.hidden_size, MAX_CHANNELS),
        ("intermediate_size", raw.intermediate_size, 4 * MAX_CHANNELS),
        ("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS),
        ("image_size", raw.image_size, MAX_SIDE),
        ("patch_size", raw.patch_size, MAX_SIDE),
    ] {
        json.size(field, value, max)?;
    }
    check_patches(json, raw.image_size, raw.patch_size)?;
    json.heads_of_any_size("num_attention_heads", raw.num_attention_heads, raw.hidden_size)?;
    Ok(BlipVisionConfig {
        hidden_size: raw.hidden_size,
        intermediate_size: raw.intermediate_size,
        num_hidden_layers: raw.num_hidden_layers,
        num_attention_heads: raw.num_attention_heads,
        image_size: raw.image_size,
        patch_size: raw.patch_size,
        hidden_act: raw.hidden_act,
        layer_norm_eps: json.positive("layer_norm_eps", raw.layer_norm_eps)?,
    })
}

fn text(json: &Json) -> Result<BlipTextConfig, ConfigError> {
    json.fixed(&[("model_type", "\"blip_text_model\""), ("is_decoder", "true")])?;
    let raw: RawText = json.to()?;
    for (field, value, max) in [
        ("vocab_size", raw.vocab_size, 1 << 24),
        ("hidden_size", raw.hidden_size, MAX_CHANNELS),
        ("intermediate_size", raw.intermediate_size, 4 * MAX_CHANNELS),
        ("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS),
        ("max_position_embeddings", raw.max_position_embeddings, 1 << 14),
    ] {
        json.size(field, value, max)?;
    }
    json.heads_of_any_size("num_attention_heads", raw.num_attention_heads, raw.hidden_size)?;
    let token = |field: &str, id: Option<u32>| match json.given(field, id)? {
        id if (id as usize) < raw.vocab_size => Ok(id),
        id => Err(json.fail(field, format!("an id below {} (vocab_size)", raw.vocab_size), id)),
    };
    Ok(BlipTextConfig {
        vocab_size: raw.vocab_size,
        hidden_size: raw.hidden_size,
        intermediate_size: raw.intermediate_size,
        num_hidden_layers: raw.num_hidden_layers,
        num_attention_heads: raw.num_attention_heads,
        max_position_embeddings: raw.max_position_embeddings,
        hidden_act: raw.hidden_act,
        layer_norm_eps: json.positive("layer_norm_eps", raw.layer_norm_eps)?,
        bos_token_id: token("bos_token_id", raw.bos_token_id)?,
        sep_token_id: token("sep_token_id", raw.sep_token_id)?,
        pad_token_id: raw.pad_token_id,
        tie_word_embeddings: raw.tie_word_embeddings,
    })
}
