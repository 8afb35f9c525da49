//! `CLIPVisionConfig`, the config of CLIP's vision tower.

use std::path::Path;

use serde::Deserialize;

use super::HiddenAct;
use crate::json::{ConfigError, Json, MAX_CHANNELS, MAX_LAYERS};

/// The most pixels of a picture's side.
pub(crate) const MAX_SIDE: usize = 4096;
/// The most patches of a picture, so that attention between them takes bounded memory.
pub(crate) const MAX_PATCHES: usize = 1 << 14;

const MODEL_TYPE: &str = "clip_vision_model";

/// A CLIP vision tower's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside an MLP.
    pub intermediate_size: usize,
    /// Channels of the projected pooled output, in a model that has a projection.
    pub projection_dim: usize,
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

/// The fields of the file, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    hidden_size: usize,
    intermediate_size: usize,
    projection_dim: Option<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: HiddenAct,
    layer_norm_eps: f64,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: None,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// Checks the number of patches in a picture of `image_size` pixels a side.
pub(super) fn check_patches(json: &Json, image_size: usize, patch_size: usize) -> Result<(), ConfigError> {
    let patches = (image_size / patch_size).pow(2);
    if patches == 0 || patches > MAX_PATCHES {
        let expected = format!("1 to {MAX_PATCHES} patches in image_size {image_size} squared");
        return Err(json.fail("patch_size", expected, patch_size));
    }
    Ok(())
}

impl ClipVisionConfig {
    /// Reads a `config.json` of a vision tower, or of a whole CLIP model or a safety checker, whose `config.json` has the vision
    /// tower's in it.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let json = Json::read(&folder.join("config.json"))?;
        let Some(mut vision) = json.nested("vision_config") else {
            return Self::from_flat(&json, MODEL_TYPE, None);
        };
        // The older spelling of the same, which transformers puts over it.
        if let Some(older) = json.nested("vision_config_dict") {
            vision.overlay(older);
        }
        let projection = json.value.get("projection_dim").map(|_| json.at("projection_dim")).transpose()?;
        Self::from_flat(&vision, MODEL_TYPE, Some(projection.unwrap_or(512)))
    }

    /// The config of a tower itself, of this `model_type` where it says one. `projection`: the projection's channels, where they stand
    /// outside of the tower's own config.
    pub(super) fn from_flat(
        json: &Json,
        model_type: &str,
        projection: Option<usize>,
    ) -> Result<Self, ConfigError> {
        json.fixed(&[("model_type", &format!("{model_type:?}")), ("num_channels", "3")])?;
        let raw: Raw = json.to()?;
        let projection_dim = projection.or(raw.projection_dim).unwrap_or(512);
        for (field, value, max) in [
            ("hidden_size", raw.hidden_size, MAX_CHANNELS),
            ("intermediate_size", raw.intermediate_size, 4 * MAX_CHANNELS),
            ("projection_dim", projection_dim, MAX_CHANNELS),
            ("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS),
            ("image_size", raw.image_size, MAX_SIDE),
            ("patch_size", raw.patch_size, MAX_SIDE),
        ] {
            json.size(field, value, max)?;
        }
        check_patches(json, raw.image_size, raw.patch_size)?;
        json.heads_of_any_size("num_attention_heads", raw.num_attention_heads, raw.hidden_size)?;
        Ok(Self {
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            projection_dim,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            image_size: raw.image_size,
            patch_size: raw.patch_size,
            hidden_act: raw.hidden_act,
            layer_norm_eps: json.positive("layer_norm_eps", raw.layer_norm_eps)?,
        })
    }

    /// The patches of a picture: whole ones only.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}
