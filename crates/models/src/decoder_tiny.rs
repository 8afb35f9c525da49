//! A small decoder of latents, for previews: the decoder of diffusers' `AutoencoderTiny` ("TAESD").

use std::path::Path;

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, relu};

use crate::Error;
use crate::config::AutoencoderTinyConfig;
use crate::nn::Conv2d;
use crate::vae_tiling::decode_in_tiles;
use crate::weights::{Network, Weights, WeightsError};

/// The side of a tile, in latents. Larger latents are decoded in tiles.
const TILE: usize = 128;

/// Latents → picture.
#[derive(Clone)]
pub struct DecoderTiny {
    /// `layers`, in sequence.
    layers: Vec<Layer>,
    config: AutoencoderTinyConfig,
}

#[derive(Clone)]
enum Layer {
    Conv2d(Conv2d),
    Relu,
    Block(AutoencoderTinyBlock),
    /// Doubles height and width by repeating pixels.
    Upsample,
}

/// Three convolutions and their input, added.
#[derive(Clone)]
struct AutoencoderTinyBlock {
    /// `conv.0`, `conv.2` and `conv.4`.
    conv: [Conv2d; 3],
}

impl DecoderTiny {
    /// Opens a folder with `config.json` and weights as safetensors.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = AutoencoderTinyConfig::read(folder)?;
        let weights = Weights::open(folder, Network::DecoderTiny, None, None)?;
        Ok(Self::load(&weights, config)?)
    }

    fn load(weights: &Weights, config: AutoencoderTinyConfig) -> Result<Self, WeightsError> {
        let decoder = weights.sub("decoder.layers");
        let (channels, blocks) = (&config.decoder_block_out_channels, &config.num_decoder_blocks);
        let first = Conv2d::load(&decoder, "0", config.latent_channels, channels[0], 3)?;
        let mut layers = vec![Layer::Conv2d(first), Layer::Relu];
        for (i, (&channels, &blocks)) in channels.iter().zip(blocks).enumerate() {
            for _ in 0..blocks {
                let block = AutoencoderTinyBlock::load(&decoder.sub(layers.len()), channels)?;
                layers.push(Layer::Block(block));
            }
            let is_last = i + 1 == config.num_decoder_blocks.len();
            if !is_last {
                layers.push(Layer::Upsample);
            }
            let name = layers.len().to_string();
            layers.push(Layer::Conv2d(match is_last {
                true => Conv2d::load(&decoder, &name, channels, 3, 3)?,
                false => Conv2d::load_unbiased(&decoder, &name, channels, channels, 3)?,
            }));
        }
        weights.finish()?;
        Ok(Self { layers, config })
    }

    /// The config.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// The denoiser's latents (1, h, w, C), f32 → a picture (1, s·h, s·w, 3), about −1 to 1, where s is [`AutoencoderTinyConfig::scale`].
    /// Latents of more than 128 × 128 are decoded in tiles.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        let latents = ops::scale(latents, 1.0 / self.config.scaling_factor);
        decode_in_tiles(&latents, TILE, &|latents| self.forward(latents))
    }

    /// latents (B, h, w, C), divided by the config's `scaling_factor` → pictures (B, s·h, s·w, 3).
    fn forward(&self, latents: &Tensor) -> Tensor {
        let mut x = map(latents, |x| (x / 3.0).tanh() * 3.0);
        for layer in &self.layers {
            x = match layer {
                Layer::Conv2d(conv) => conv.forward(&x),
                Layer::Relu => relu(&x),
                Layer::Block(block) => block.forward(&x),
                Layer::Upsample => ops::upsample_nearest2x(&x),
            };
        }
        map(&x, |x| 2.0 * x - 1.0)
    }
}

impl AutoencoderTinyBlock {
    fn load(weights: &Weights, channels: usize) -> Result<Self, WeightsError> {
        let conv = |i: usize| Conv2d::load(weights, &format!("conv.{i}"), channels, channels, 3);
        Ok(Self { conv: [conv(0)?, conv(2)?, conv(4)?] })
    }

    /// x (B, H, W, C) → (B, H, W, C).
    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.conv;
        let h = relu(&second.forward(&relu(&first.forward(x))));
        relu(&third.forward_fused(&h, None, Some(x)))
    }
}

/// Maps each value.
fn map(x: &Tensor, map: impl Fn(f32) -> f32) -> Tensor {
    x.device().upload(&x.to_vec().into_iter().map(map).collect::<Vec<_>>(), x.shape())
}
