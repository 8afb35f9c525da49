//! The UNet's blocks: ResNets, each followed by a transformer if the block has attention.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{self, Padding};

use super::{BlockContext, resnet_config};
use crate::config::{UNetBlock, UNetConfig, UNetMidBlock};
use crate::nn::{
    Activations, Downsample2D, ResnetBlock2D, Transformer2DConfig, Transformer2DModel, Upsample2D, module,
};
use crate::weights::{Weights, WeightsError};

/// `DownBlock2D`, or with attention `CrossAttnDownBlock2D`.
#[derive(Clone)]
pub struct DownBlock {
    /// The first changes the number of channels.
    pub resnets: Vec<ResnetBlock2D>,
    /// One after each ResNet, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// Halves the image (`downsamplers.0`); `None` in the last block.
    pub downsampler: Option<Downsample2D>,
}

/// `UNetMidBlock2DCrossAttn` (ResNet, transformer, ResNet), `UNetMidBlock2D` (one ResNet), or an empty block.
#[derive(Clone)]
pub struct MidBlock {
    /// Two, one or none.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, between two ResNets, or none.
    pub attentions: Vec<Transformer2DModel>,
}

/// `UpBlock2D`, or with attention `CrossAttnUpBlock2D`.
#[derive(Clone)]
pub struct UpBlock {
    /// The input of each is the concatenation of its predecessor's output and a skip.
    pub resnets: Vec<ResnetBlock2D>,
    /// One after each ResNet, or none.
    pub attentions: Vec<Transformer2DModel>,
    /// Doubles the image (`upsamplers.0`); `None` in the last block.
    pub upsampler: Option<Upsample2D>,
}

/// Loads a transformer for each of `depths`, with the sizes of level `level` of the down path.
fn load_attentions(
    weights: &Weights,
    config: &UNetConfig,
    level: usize,
    depths: &[usize],
) -> Result<Vec<Transformer2DModel>, WeightsError> {
    let load = |(i, &depth): (usize, &usize)| {
        let sizes = Transformer2DConfig {
            channels: config.block_out_channels[level],
            heads: config.num_attention_heads[level],
            depth,
            cross_attention_dim: config.cross_attention_dim,
            use_linear_projection: config.use_linear_projection,
            groups: config.norm_num_groups,
        };
        Transformer2DModel::load(&weights.sub(format!("attentions.{i}")), &sizes)
    };
    depths.iter().enumerate().map(load).collect()
}

impl DownBlock {
    /// Loads block `i`, and pushes the channels of the block's skips onto `skips`.
    pub(super) fn load(
        weights: &Weights,
        config: &UNetConfig,
        i: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Self, WeightsError> {
        let weights = weights.sub(format!("down_blocks.{i}"));
        let channels = config.block_out_channels[i];
        let mut input = config.block_out_channels[i.saturating_sub(1)];
        let mut resnets = Vec::new();
        for j in 0..config.layers_per_block[i] {
            let weights = weights.sub(format!("resnets.{j}"));
            resnets.push(ResnetBlock2D::load(&weights, input, channels, resnet_config(config))?);
            input = channels;
            skips.push(channels);
        }
        let attentions = match config.down_block_types[i] {
            UNetBlock::CrossAttn => load_attentions(&weights, config, i, &config.down_transformer_layers[i])?,
            UNetBlock::Plain => Vec::new(),
        };
        let mut downsampler = None;
        if i + 1 < config.block_out_channels.len() {
            downsampler = Some(Downsample2D::load(&weights.sub("downsamplers.0"), channels, Padding::Same)?);
            skips.push(channels);
        }
        Ok(Self { resnets, attentions, downsampler })
    }

    /// x (B, H, W, C), `emb` (B, E) after SiLU → (B, H/2, W/2, C'). Pushes the output of each stage onto `skips`.
    pub fn forward(
        &self,
        x: &Tensor,
        emb: &Tensor,
        text: &BlockContext,
        skips: &mut Vec<Tensor>,
        activations: Activations,
    ) -> Tensor {
        let mut x = x.clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(emb), activations);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(&x, &text[i], activations);
            }
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x);
            skips.push(x.clone());
        }
        x
    }
}

impl MidBlock {
    pub(super) fn load(weights: &Weights, config: &UNetConfig) -> Result<Self, WeightsError> {
        let level = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[level];
        let resnet = |i: usize| {
            let weights = weights.sub(format!("resnets.{i}"));
            ResnetBlock2D::load(&weights, channels, channels, resnet_config(config))
        };
        let (resnets, depths) = match config.mid_block_type {
            UNetMidBlock::CrossAttn => (2, &[config.mid_transformer_layers][..]),
            UNetMidBlock::Plain => (1, &[][..]),
            UNetMidBlock::None => (0, &[][..]),
        };
        Ok(Self {
            resnets: (0..resnets).map(resnet).collect::<Result<_, _>>()?,
            attentions: load_attentions(weights, config, level, depths)?,
        })
    }

    /// x (B, H, W, C), `emb` (B, E) after SiLU → (B, H, W, C).
    pub fn forward(&self, x: &Tensor, emb: &Tensor, text: &BlockContext, activations: Activations) -> Tensor {
        let mut x = x.clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(emb), activations);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(&x, &text[i], activations);
            }
        }
        x
    }
}

impl UpBlock {
    /// Loads block `i`, and pops the channels of the skips that the block consumes.
    pub(super) fn load(
        weights: &Weights,
        config: &UNetConfig,
        i: usize,
        skips: &mut Vec<usize>,
    ) -> Result<Self, WeightsError> {
        let weights = weights.sub(format!("up_blocks.{i}"));
        let last = config.block_out_channels.len() - 1;
        let level = last - i;
        let channels = config.block_out_channels[level];
        let mut input = config.block_out_channels[(level + 1).min(last)];
        let mut resnets = Vec::new();
        for j in 0..config.layers_per_block[level] + 1 {
            let weights = weights.sub(format!("resnets.{j}"));
            let skip = skips.pop().expect("the down path leaves a skip for every ResNet of the up path");
            resnets.push(ResnetBlock2D::load(&weights, input + skip, channels, resnet_config(config))?);
            input = channels;
        }
        let attentions = match config.up_block_types[i] {
            UNetBlock::CrossAttn => {
                load_attentions(&weights, config, level, &config.up_transformer_layers[i])?
            }
            UNetBlock::Plain => Vec::new(),
        };
        let upsampler = match level {
            0 => None,
            _ => Some(Upsample2D::load(&weights.sub("upsamplers.0"), channels)?),
        };
        Ok(Self { resnets, attentions, upsampler })
    }

    /// x (B, H, W, C), `emb` (B, E) after SiLU → (B, 2H, 2W, C'), or the size of the next skip, which is one less if the down
    /// path rounded up. Pops a skip for each ResNet.
    pub fn forward(
        &self,
        x: &Tensor,
        emb: &Tensor,
        text: &BlockContext,
        skips: &mut Vec<Tensor>,
        activations: Activations,
    ) -> Tensor {
        let mut x = x.clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("a skip for every ResNet");
            x = resnet.forward(&ops::concat(&[&x, &skip]), Some(emb), activations);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(&x, &text[i], activations);
            }
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => upsampler.forward_to(&x, next.dim(1), next.dim(2)),
            _ => x,
        }
    }
}

module!(DownBlock { resnets => "resnets", attentions => "attentions", downsampler => "downsamplers.0" });
module!(MidBlock { resnets => "resnets", attentions => "attentions" });
module!(UpBlock { resnets => "resnets", attentions => "attentions", upsampler => "upsamplers.0" });
