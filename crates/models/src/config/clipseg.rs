//! `CLIPSegConfig`, the config of CLIPSeg: CLIP's two towers and a decoder.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;

use super::clip_vision::{MAX_PATCHES, MAX_SIDE};
use super::{ClipTextConfig, ClipVisionConfig};
use crate::json::{ConfigError, Json, MAX_CHANNELS, MAX_LAYERS};

/// The class of transformers that makes masks.
const CLASS: &str = "CLIPSegForImageSegmentation";

/// CLIPSeg's sizes. The decoder's activation is ReLU, whatever `decoder_hidden_act` says, as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipSegConfig {
    /// `text_config`; its `projection_dim` is that of the whole.
    pub text: ClipTextConfig,
    /// `vision_config`; its `projection_dim` is that of the whole.
    pub vision: ClipVisionConfig,
    /// Layers of the vision tower, counted from 0, whose outputs the decoder takes.
    pub extract_layers: Vec<usize>,
    /// Channels of the decoder.
    pub reduce_dim: usize,
    /// Attention heads of the decoder.
    pub decoder_num_attention_heads: usize,
    /// Channels inside the decoder's MLPs.
    pub decoder_intermediate_size: usize,
    /// The decoder's layer, counted from 0, before which the prompt comes in. There may be no such layer.
    pub conditional_layer: i64,
    /// Whether the decoder ends with three convolutions instead of one.
    pub use_complex_transposed_convolution: bool,
}

/// The fields of the file, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    projection_dim: Option<usize>,
    extract_layers: Vec<usize>,
    reduce_dim: usize,
    decoder_num_attention_heads: usize,
    decoder_intermediate_size: usize,
    conditional_layer: i64,
    use_complex_transposed_convolution: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            projection_dim: None,
            extract_layers: vec![3, 6, 9],
            reduce_dim: 64,
            decoder_num_attention_heads: 4,
            decoder_intermediate_size: 2048,
            conditional_layer: 0,
            use_complex_transposed_convolution: false,
        }
    }
}

impl ClipSegConfig {
    /// Reads the `config.json` of a folder.
    ///
    /// # Errors
    /// The file is missing or invalid, or the config of another model.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let json = Json::read(&folder.join("config.json"))?;
        json.class(CLASS, "clipseg")?;
        let raw: Raw = json.to()?;
        let projection_dim = raw.projection_dim.unwrap_or(512);
        // The older spelling, where it is given, is the whole config of the tower.
        let tower = |name: &str| match json.nested(&format!("{name}_dict")) {
            Some(older) => Ok(older),
            None => json.nested_or_empty(name),
        };
        let mut text = ClipTextConfig::from_flat(&tower("text_config")?, "clipseg_text_model")?;
        text.projection_dim = projection_dim;
        let vision = tower("vision_config")?;
        let vision = ClipVisionConfig::from_flat(&vision, "clipseg_vision_model", Some(projection_dim))?;
        let config = Self {
            text,
            vision,
            extract_layers: raw.extract_layers,
            reduce_dim: raw.reduce_dim,
            decoder_num_attention_heads: raw.decoder_num_attention_heads,
            decoder_intermediate_size: raw.decoder_intermediate_size,
            conditional_layer: raw.conditional_layer,
            use_complex_transposed_convolution: raw.use_complex_transposed_convolution,
        };
        config.check(&json)?;
        Ok(config)
    }

    fn check(&self, json: &Json) -> Result<(), ConfigError> {
        json.size("reduce_dim", self.reduce_dim, MAX_CHANNELS)?;
        json.size("decoder_intermediate_size", self.decoder_intermediate_size, 4 * MAX_CHANNELS)?;
        json.heads_of_any_size(
            "decoder_num_attention_heads",
            self.decoder_num_attention_heads,
            self.reduce_dim,
        )?;
        let (taken, layers) = (&self.extract_layers, self.vision.num_hidden_layers);
        if taken.is_empty() || taken.len() > MAX_LAYERS || taken.iter().any(|&layer| layer >= layers) {
            let expected = format!("numbers below {layers} (num_hidden_layers of vision_config)");
            return Err(json.fail("extract_layers", expected, format!("{taken:?}")));
        }
        // Its two transposed convolutions have a fourth of the patch's side each, and the first has half of the channels.
        if self.use_complex_transposed_convolution && (self.vision.patch_size < 4 || self.reduce_dim < 2) {
            let found =
                format!("true, patch_size {}, reduce_dim {}", self.vision.patch_size, self.reduce_dim);
            let expected = "false, or a patch_size of at least 4 and a reduce_dim of at least 2";
            return Err(json.fail("use_complex_transposed_convolution", expected, found));
        }
        Ok(())
    }

    /// The sides of the square pictures that the network takes, in pixels: at least a patch, and not too many of them.
    pub fn sides(&self) -> RangeInclusive<usize> {
        let patch = self.vision.patch_size;
        patch..=MAX_SIDE.min(patch * MAX_PATCHES.isqrt())
    }

    /// The layers of the vision tower that the decoder needs.
    pub fn vision_layers(&self) -> usize {
        self.extract_layers.iter().max().map_or(0, |last| last + 1)
    }
}
