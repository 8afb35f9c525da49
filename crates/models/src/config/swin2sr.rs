//! `Swin2SRConfig`.

use std::path::Path;

use serde::Deserialize;

use super::HiddenAct;
use crate::json::{ConfigError, Json, MAX_CHANNELS, MAX_LAYERS, PerBlock};

/// The largest side of a window: attention takes the fourth power of it.
const MAX_WINDOW: usize = 16;
/// The one upsampler that is supported, and its factor.
const UPSAMPLER: &str = "nearest+conv";
const UPSCALE: usize = 4;

/// Swin2SR's sizes. Pictures are RGB, patches are pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Swin2SrConfig {
    /// Channels.
    pub embed_dim: usize,
    /// Layers of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub num_heads: Vec<usize>,
    /// Pixels of a window's side.
    pub window_size: usize,
    /// Pixels by which each second layer's windows are shifted.
    pub shift_size: usize,
    /// Channels inside an MLP.
    pub mlp_dim: usize,
    /// Whether queries and values have a bias.
    pub qkv_bias: bool,
    /// The MLP's activation.
    pub hidden_act: HiddenAct,
    /// Epsilon of the layer norms, but for that of the patches, which has 1e-5.
    pub layer_norm_eps: f32,
    /// What pixels from 0 to 1 are multiplied with.
    pub img_range: f32,
    /// Whether a stage ends with three convolutions ("3conv") instead of one.
    pub three_convs: bool,
}

/// The fields of the file, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    embed_dim: usize,
    depths: Vec<usize>,
    num_heads: Vec<usize>,
    window_size: usize,
    image_size: PerBlock<usize>,
    mlp_ratio: f64,
    qkv_bias: bool,
    hidden_act: HiddenAct,
    layer_norm_eps: f64,
    img_range: f64,
    resi_connection: String,
    upscale: usize,
    upsampler: Option<String>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            embed_dim: 180,
            depths: vec![6; 6],
            num_heads: vec![6; 6],
            window_size: 8,
            image_size: PerBlock::One(64),
            mlp_ratio: 2.0,
            qkv_bias: true,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-5,
            img_range: 1.0,
            resi_connection: "1conv".into(),
            upscale: 2,
            upsampler: Some("pixelshuffle".into()),
        }
    }
}

impl Swin2SrConfig {
    /// Reads the `config.json` of a model's folder.
    ///
    /// # Errors
    /// The file is missing or invalid, or the model's upsampler is not supported.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let json = Json::read(&folder.join("config.json"))?;
        json.fixed(&[
            ("model_type", "\"swin2sr\""),
            ("num_channels", "3"),
            ("patch_size", "1"),
            ("use_absolute_embeddings", "false"),
        ])?;
        if json.value.get("num_channels_out").is_some_and(|channels| !channels.is_null()) {
            json.fixed(&[("num_channels_out", "3")])?;
        }
        let raw: Raw = json.to()?;
        let upsampler = raw.upsampler.as_deref().unwrap_or("null");
        if upsampler != UPSAMPLER {
            let expected =
                format!("{UPSAMPLER:?}, as models for real pictures have (nothing else is supported)");
            return Err(json.fail("upsampler", expected, format!("{upsampler:?}")));
        }
        if raw.upscale != UPSCALE {
            return Err(json.fail("upscale", format!("{UPSCALE}, as {UPSAMPLER:?} has"), raw.upscale));
        }
        json.choice("resi_connection", std::slice::from_ref(&raw.resi_connection), &["1conv", "3conv"])?;
        Self::checked(&json, raw)
    }

    fn checked(json: &Json, raw: Raw) -> Result<Self, ConfigError> {
        json.size("embed_dim", raw.embed_dim, MAX_CHANNELS)?;
        json.size("window_size", raw.window_size, MAX_WINDOW)?;
        json.size("depths", raw.depths.len(), MAX_LAYERS)?;
        json.sizes("depths", &raw.depths, MAX_LAYERS)?;
        json.length("num_heads", raw.num_heads.len(), raw.depths.len())?;
        json.sizes("num_heads", &raw.num_heads, MAX_CHANNELS)?;
        if let Some(heads) = raw.num_heads.iter().find(|heads| !raw.embed_dim.is_multiple_of(**heads)) {
            let expected = format!("numbers of heads that divide {} channels", raw.embed_dim);
            return Err(json.fail("num_heads", expected, heads));
        }
        // A window as large as the pictures of the training is not shifted. There are none that are larger.
        let image_size = match raw.image_size {
            PerBlock::One(size) => size,
            PerBlock::Each(sizes) => sizes.first().copied().unwrap_or(0),
        };
        if image_size < raw.window_size {
            return Err(json.fail(
                "image_size",
                format!("at least a window of {}", raw.window_size),
                image_size,
            ));
        }
        let shift_size = if image_size == raw.window_size { 0 } else { raw.window_size / 2 };
        let mlp_dim = f64::from(json.positive("mlp_ratio", raw.mlp_ratio)?) * raw.embed_dim as f64;
        json.size("mlp_ratio", mlp_dim as usize, 4 * MAX_CHANNELS)?;
        Ok(Self {
            embed_dim: raw.embed_dim,
            depths: raw.depths,
            num_heads: raw.num_heads,
            window_size: raw.window_size,
            shift_size,
            mlp_dim: mlp_dim as usize,
            qkv_bias: raw.qkv_bias,
            hidden_act: raw.hidden_act,
            layer_norm_eps: json.positive("layer_norm_eps", raw.layer_norm_eps)?,
            img_range: json.positive("img_range", raw.img_range)?,
            three_convs: raw.resi_connection == "3conv",
        })
    }
}
