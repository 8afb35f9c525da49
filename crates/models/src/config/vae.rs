//! `AutoencoderKL`'s config.

use std::path::Path;

use serde::Deserialize;

use crate::json::{ConfigError, Json, MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS, PerBlock};

/// A VAE's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Image channels in: 3.
    pub in_channels: usize,
    /// Image channels out: 3.
    pub out_channels: usize,
    /// Latent channels (4 for SDXL).
    pub latent_channels: usize,
    /// Channels of each encoder block; the decoder uses them in reverse. Each block but the last halves the picture's sides.
    pub block_out_channels: Vec<usize>,
    /// ResNets of each encoder block; a decoder block has one more.
    pub layers_per_block: usize,
    /// Groups of every group norm (whose epsilon is 1e-6).
    pub norm_num_groups: usize,
    /// Height and width of the pictures that the VAE was trained on, in pixels.
    pub sample_size: usize,
    /// The factor of the latents that the encoder makes.
    pub scaling_factor: f32,
    /// Per-channel mean and standard deviation with which some checkpoints also normalise latents. The decoder
    /// gets `latents · std / scaling_factor + mean`.
    pub latents_mean_std: Option<(Vec<f32>, Vec<f32>)>,
    /// Whether activations overflow in f16, so that the VAE must run in f32.
    pub force_upcast: bool,
    /// Whether the encoder ends with a 1×1 `quant_conv`.
    pub use_quant_conv: bool,
    /// Whether the decoder begins with a 1×1 `post_quant_conv`.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have attention.
    pub mid_block_add_attention: bool,
}

/// The fields of the file, with diffusers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    in_channels: usize,
    out_channels: usize,
    latent_channels: usize,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    layers_per_block: usize,
    norm_num_groups: usize,
    sample_size: PerBlock<usize>,
    scaling_factor: f64,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    force_upcast: bool,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![64],
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            layers_per_block: 1,
            norm_num_groups: 32,
            sample_size: PerBlock::One(32),
            scaling_factor: 0.18215,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// `shift_factor` belongs to other models. SDXL's pipeline does not read it, so a value would be ignored silently.
const FIXED: &[(&str, &str)] = &[
    ("_class_name", "\"AutoencoderKL\""),
    ("in_channels", "3"),
    ("out_channels", "3"),
    ("shift_factor", "null"),
];

impl VaeConfig {
    /// Reads the `config.json` of one component's folder.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        Self::from_json(&Json::read(&folder.join("config.json"))?)
    }

    /// Reads and checks the config. An error names the file and the field, and what was expected and found.
    pub(crate) fn from_json(json: &Json) -> Result<Self, ConfigError> {
        json.fixed(FIXED)?;
        json.silu("act_fn")?;
        let raw: Raw = json.to()?;
        let blocks = raw.block_out_channels.len();
        json.size("block_out_channels", blocks, MAX_BLOCKS)?;
        json.length("down_block_types", raw.down_block_types.len(), blocks)?;
        json.length("up_block_types", raw.up_block_types.len(), blocks)?;
        json.choice("down_block_types", &raw.down_block_types, &["DownEncoderBlock2D"])?;
        json.choice("up_block_types", &raw.up_block_types, &["UpDecoderBlock2D"])?;
        let config = Self {
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            latent_channels: raw.latent_channels,
            block_out_channels: raw.block_out_channels,
            layers_per_block: raw.layers_per_block,
            norm_num_groups: raw.norm_num_groups,
            sample_size: json.uniform("sample_size", raw.sample_size)?,
            scaling_factor: json.positive("scaling_factor", raw.scaling_factor)?,
            latents_mean_std: raw.latents_mean.zip(raw.latents_std),
            force_upcast: raw.force_upcast,
            use_quant_conv: raw.use_quant_conv,
            use_post_quant_conv: raw.use_post_quant_conv,
            mid_block_add_attention: raw.mid_block_add_attention,
        };
        config.check(json)?;
        Ok(config)
    }

    fn check(&self, json: &Json) -> Result<(), ConfigError> {
        json.sizes("block_out_channels", &self.block_out_channels, MAX_CHANNELS)?;
        json.size("latent_channels", self.latent_channels, MAX_CHANNELS)?;
        json.size("layers_per_block", self.layers_per_block, MAX_LAYERS)?;
        json.size("sample_size", self.sample_size, MAX_CHANNELS)?;
        json.groups(self.norm_num_groups, &self.block_out_channels)?;
        if let (true, Some(&last)) = (self.mid_block_add_attention, self.block_out_channels.last()) {
            // The attention has one head, over all of the last block's channels.
            json.heads("block_out_channels", 1, last)?;
        }
        if let Some((mean, std)) = &self.latents_mean_std {
            json.length("latents_mean", mean.len(), self.latent_channels)?;
            json.length("latents_std", std.len(), self.latent_channels)?;
            std.iter().try_for_each(|&s| json.positive("latents_std", s.into()).map(drop))?;
        }
        Ok(())
    }

    /// Pixels per latent, along one side.
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
