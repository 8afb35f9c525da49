//! The encoder and decoder of pictures: diffusers' `AutoencoderKL`.
//! Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, Padding};

use crate::config::VaeConfig;
use crate::nn::{
    Activations, Attention, Conv2d, Downsample2D, GroupNorm, ResnetBlock2D, ResnetConfig, Upsample2D,
};
use crate::weights::{Weights, WeightsError};

/// Epsilon of every group norm.
const EPS: f32 = 1e-6;

/// Encoder and decoder.
#[derive(Clone)]
pub struct Vae {
    /// Picture → moments.
    pub encoder: Encoder,
    /// 1×1, after the encoder.
    pub quant_conv: Option<Conv2d>,
    /// 1×1, before the decoder.
    pub post_quant_conv: Option<Conv2d>,
    /// Latents → picture.
    pub decoder: Decoder,
}

/// Picture → moments of the latents.
#[derive(Clone)]
pub struct Encoder {
    /// 3 → first block.
    pub conv_in: Conv2d,
    /// Each block but the last halves the image.
    pub down_blocks: Vec<DownEncoderBlock>,
    /// The block at the smallest size.
    pub mid_block: MidBlock,
    /// Before `conv_out`, with SiLU.
    pub conv_norm_out: GroupNorm,
    /// → 2 · latent channels.
    pub conv_out: Conv2d,
}

/// Latents → picture.
#[derive(Clone)]
pub struct Decoder {
    /// Latent channels → last block.
    pub conv_in: Conv2d,
    /// The block at the smallest size.
    pub mid_block: MidBlock,
    /// Each block but the last doubles the image.
    pub up_blocks: Vec<UpDecoderBlock>,
    /// Before `conv_out`, with SiLU.
    pub conv_norm_out: GroupNorm,
    /// → 3.
    pub conv_out: Conv2d,
}

/// `DownEncoderBlock2D`.
#[derive(Clone)]
pub struct DownEncoderBlock {
    /// The first changes the number of channels.
    pub resnets: Vec<ResnetBlock2D>,
    /// `downsamplers.0`; `None` in the last block.
    pub downsampler: Option<Downsample2D>,
}

/// `UpDecoderBlock2D`.
#[derive(Clone)]
pub struct UpDecoderBlock {
    /// The first changes the number of channels.
    pub resnets: Vec<ResnetBlock2D>,
    /// `upsamplers.0`; `None` in the last block.
    pub upsampler: Option<Upsample2D>,
}

/// `UNetMidBlock2D`: ResNet, attention between all pixels, ResNet.
#[derive(Clone)]
pub struct MidBlock {
    /// Two.
    pub resnets: Vec<ResnetBlock2D>,
    /// `attentions.0`.
    pub attention: Option<MidAttention>,
}

/// Attention with one head over an image's pixels. The image is added to the result.
#[derive(Clone)]
pub struct MidAttention {
    /// Before the attention.
    pub group_norm: GroupNorm,
    /// The attention.
    pub attn: Attention,
}

/// The distribution of the latents that the encoder gives: an independent Gaussian for each value.
#[derive(Clone)]
pub struct Moments {
    /// (B, h, w, 2C): mean, then log variance.
    pub parameters: Tensor,
}

impl Vae {
    /// Loads encoder and decoder.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &VaeConfig) -> Result<Self, WeightsError> {
        let latent = config.latent_channels;
        let conv1x1 = |name: &str, channels| Conv2d::load(weights, name, channels, channels, 1);
        let vae = Self {
            encoder: Encoder::load(&weights.sub("encoder"), config)?,
            quant_conv: config.use_quant_conv.then(|| conv1x1("quant_conv", 2 * latent)).transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| conv1x1("post_quant_conv", latent))
                .transpose()?,
            decoder: Decoder::load(&weights.sub("decoder"), config)?,
        };
        weights.finish()?;
        Ok(vae)
    }

    /// image (B, H, W, 3) from −1 to 1 → the moments of latents (B, H/8, W/8, C), not yet multiplied by the
    /// config's `scaling_factor`. Sizes that 8 does not divide are rounded down.
    pub fn encode(&self, image: &Tensor) -> Moments {
        self.moments(self.encoder.forward(image))
    }

    /// The moments, from the encoder's output.
    pub(super) fn moments(&self, h: Tensor) -> Moments {
        let parameters = match &self.quant_conv {
            Some(conv) => conv.forward(&h),
            None => h,
        };
        Moments { parameters }
    }

    /// latents (B, h, w, C), already divided by the config's `scaling_factor` → image (B, 8h, 8w, 3), about −1 to
    /// 1. The latents' dtype, f32 or bf16, is the dtype that the network computes in.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)),
            None => self.decoder.forward(latents),
        }
    }
}

impl Encoder {
    fn load(weights: &Weights, config: &VaeConfig) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let block = |i| DownEncoderBlock::load(&weights.sub(format!("down_blocks.{i}")), config, i);
        Ok(Self {
            conv_in: Conv2d::load(weights, "conv_in", config.in_channels, first, 3)?,
            down_blocks: (0..channels.len()).map(block).collect::<Result<_, _>>()?,
            mid_block: MidBlock::load(&weights.sub("mid_block"), config)?,
            conv_norm_out: GroupNorm::load(weights, "conv_norm_out", config.norm_num_groups, last, EPS)?,
            conv_out: Conv2d::load(weights, "conv_out", last, 2 * config.latent_channels, 3)?,
        })
    }

    /// image (B, H, W, 3) → (B, H/8, W/8, 2C).
    pub fn forward(&self, image: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(image);
        for block in &self.down_blocks {
            x = block.forward(x);
        }
        self.after_blocks(&x)
    }

    /// What follows the blocks: x (B, H/8, W/8, C) → (B, H/8, W/8, 2C).
    pub(super) fn after_blocks(&self, x: &Tensor) -> Tensor {
        let x = self.mid_block.forward(x);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x))
    }
}

impl Decoder {
    fn load(weights: &Weights, config: &VaeConfig) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let block = |i| UpDecoderBlock::load(&weights.sub(format!("up_blocks.{i}")), config, i);
        Ok(Self {
            conv_in: Conv2d::load(weights, "conv_in", config.latent_channels, last, 3)?,
            mid_block: MidBlock::load(&weights.sub("mid_block"), config)?,
            up_blocks: (0..channels.len()).map(block).collect::<Result<_, _>>()?,
            conv_norm_out: GroupNorm::load(weights, "conv_norm_out", config.norm_num_groups, first, EPS)?,
            conv_out: Conv2d::load(weights, "conv_out", first, config.out_channels, 3)?,
        })
    }

    /// latents (B, h, w, C), after `post_quant_conv` → image (B, 8h, 8w, 3).
    pub fn forward(&self, latents: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(latents);
        x = self.mid_block.forward(&x);
        for block in &self.up_blocks {
            x = block.forward(x);
        }
        x = self.conv_norm_out.forward_silu(&x);
        self.conv_out.forward(&x)
    }
}

/// Loads a sequence of `count` ResNets. The first has `input` channels in, and all have `output` channels out.
fn load_resnets(
    weights: &Weights,
    config: &VaeConfig,
    count: usize,
    input: usize,
    output: usize,
) -> Result<Vec<ResnetBlock2D>, WeightsError> {
    let sizes = ResnetConfig { time_embed_dim: None, groups: config.norm_num_groups, eps: EPS };
    let load = |i| {
        let weights = weights.sub(format!("resnets.{i}"));
        ResnetBlock2D::load(&weights, if i == 0 { input } else { output }, output, sizes)
    };
    (0..count).map(load).collect()
}

impl DownEncoderBlock {
    fn load(weights: &Weights, config: &VaeConfig, i: usize) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
        let downsampler = match i + 1 < channels.len() {
            true => Some(Downsample2D::load(&weights.sub("downsamplers.0"), output, Padding::BottomRight)?),
            false => None,
        };
        let resnets = load_resnets(weights, config, config.layers_per_block, input, output)?;
        Ok(Self { resnets, downsampler })
    }

    /// x (B, H, W, C) → (B, H/2, W/2, C'). Takes x by value, so that x is freed after the first ResNet.
    pub fn forward(&self, x: Tensor) -> Tensor {
        let x = self.resnets.iter().fold(x, |x, resnet| resnet.forward(&x, None, Activations::Keep));
        match &self.downsampler {
            Some(downsampler) => downsampler.forward(&x),
            None => x,
        }
    }
}

impl UpDecoderBlock {
    fn load(weights: &Weights, config: &VaeConfig, i: usize) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let level = channels.len() - 1 - i;
        let (input, output) = (channels[(level + 1).min(channels.len() - 1)], channels[level]);
        let upsampler = match level {
            0 => None,
            _ => Some(Upsample2D::load(&weights.sub("upsamplers.0"), output)?),
        };
        let resnets = load_resnets(weights, config, config.layers_per_block + 1, input, output)?;
        Ok(Self { resnets, upsampler })
    }

    /// x (B, H, W, C) → (B, 2H, 2W, C'). Takes x by value, so that x is freed after the first ResNet.
    pub fn forward(&self, x: Tensor) -> Tensor {
        let x = self.resnets.iter().fold(x, |x, resnet| resnet.forward(&x, None, Activations::Keep));
        match &self.upsampler {
            Some(upsampler) => upsampler.forward(&x),
            None => x,
        }
    }
}

impl MidBlock {
    fn load(weights: &Weights, config: &VaeConfig) -> Result<Self, WeightsError> {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let attention = || -> Result<MidAttention, WeightsError> {
            let weights = weights.sub("attentions.0");
            Ok(MidAttention {
                group_norm: GroupNorm::load(&weights, "group_norm", config.norm_num_groups, channels, EPS)?,
                attn: Attention::load_single_head(&weights, channels)?,
            })
        };
        Ok(Self {
            resnets: load_resnets(weights, config, 2, channels, channels)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    /// x (B, H, W, C) → (B, H, W, C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.resnets[0].forward(x, None, Activations::Keep);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x);
        }
        self.resnets[1].forward(&x, None, Activations::Keep)
    }
}

impl MidAttention {
    /// x (B, H, W, C) → (B, H, W, C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let residual = x.reshape(&[x.dim(0), x.dim(1) * x.dim(2), x.dim(3)]); // (B, T, C)
        self.attn.forward_self(&self.group_norm.forward(&residual), &residual).reshape(x.shape())
    }
}

impl Moments {
    /// The mean (B, h, w, C).
    pub fn mean(&self) -> Tensor {
        let channels = self.parameters.last_dim() / 2;
        ops::slice_last(&self.parameters, 0, channels)
    }

    /// The log variance (B, h, w, C), not clamped.
    pub fn logvar(&self) -> Tensor {
        let channels = self.parameters.last_dim() / 2;
        ops::slice_last(&self.parameters, channels, channels)
    }

    /// mean + e^(logvar / 2) · noise, with logvar clamped to −30..20. The result is f32 and detached. `noise` (B,
    /// h, w, C) holds standard normal numbers.
    ///
    /// # Panics
    /// If the shape of `noise` is not that of the latents.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        let (mean, logvar) = (self.mean(), self.logvar());
        assert_eq!(noise.shape(), mean.shape(), "noise for the latents");
        let terms = mean.to_vec().into_iter().zip(logvar.to_vec()).zip(noise.to_vec());
        let sample =
            terms.map(|((mean, logvar), noise)| mean + (0.5 * logvar.clamp(-30.0, 20.0)).exp() * noise);
        mean.device().upload(&sample.collect::<Vec<_>>(), mean.shape())
    }
}
