//! `AutoencoderTiny`'s config, as far as its decoder is concerned.

use std::path::Path;

use serde::Deserialize;

use crate::json::{ConfigError, Json, MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS};

/// The decoder's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderTinyConfig {
    /// Latent channels (4 for SDXL).
    pub latent_channels: usize,
    /// Channels of each of the decoder's stages. Each stage but the last doubles the picture's sides.
    pub decoder_block_out_channels: Vec<usize>,
    /// Residual blocks of each stage.
    pub num_decoder_blocks: Vec<usize>,
    /// The denoiser's latents are divided by this factor before they are decoded.
    pub scaling_factor: f32,
}

/// The fields of the file, with diffusers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    latent_channels: usize,
    decoder_block_out_channels: Vec<usize>,
    num_decoder_blocks: Vec<usize>,
    scaling_factor: f64,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            latent_channels: 4,
            decoder_block_out_channels: vec![64; 4],
            num_decoder_blocks: vec![3, 3, 3, 1],
            scaling_factor: 1.0,
        }
    }
}

const FIXED: &[(&str, &str)] = &[
    ("_class_name", "\"AutoencoderTiny\""),
    ("out_channels", "3"),
    ("act_fn", "\"relu\""),
    ("upsample_fn", "\"nearest\""),
    ("upsampling_scaling_factor", "2"),
    ("shift_factor", "0.0"),
];

impl AutoencoderTinyConfig {
    /// Reads the `config.json` of a folder.
    ///
    /// # Errors
    /// The file is missing or invalid, or the config is of another network.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let json = Json::read(&folder.join("config.json"))?;
        json.fixed(FIXED)?;
        let Raw { latent_channels, decoder_block_out_channels, num_decoder_blocks, scaling_factor } =
            json.to()?;
        let stages = decoder_block_out_channels.len();
        json.size("latent_channels", latent_channels, MAX_CHANNELS)?;
        json.size("decoder_block_out_channels", stages, MAX_BLOCKS)?;
        json.sizes("decoder_block_out_channels", &decoder_block_out_channels, MAX_CHANNELS)?;
        json.length("num_decoder_blocks", num_decoder_blocks.len(), stages)?;
        json.sizes("num_decoder_blocks", &num_decoder_blocks, MAX_LAYERS)?;
        // A stage has no convolution that changes the number of channels before the next one.
        if let Some(other) = decoder_block_out_channels.iter().find(|c| **c != decoder_block_out_channels[0])
        {
            let expected = format!("the same channels in all stages ({})", decoder_block_out_channels[0]);
            return Err(json.fail("decoder_block_out_channels", expected, other));
        }
        let scaling_factor = json.positive("scaling_factor", scaling_factor)?;
        Ok(Self { latent_channels, decoder_block_out_channels, num_decoder_blocks, scaling_factor })
    }

    /// Pixels per latent, along one side.
    pub fn scale(&self) -> usize {
        1 << (self.decoder_block_out_channels.len() - 1)
    }
}
