//! SDXL's denoiser: diffusers' `UNet2DConditionModel` with `text_time` conditioning.
//! Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", 2023.

mod blocks;
mod context;

use calotype_tensor::{Device, Tensor, ops};

pub use blocks::{DownBlock, MidBlock, UpBlock};
pub use context::{BlockContext, Context};

use crate::config::UNetConfig;
use crate::nn::{Activations, Conv2d, GroupNorm, ResnetConfig, TimestepEmbedding, module};
use crate::weights::{Weights, WeightsError};

/// The denoiser.
#[derive(Clone)]
pub struct UNet {
    /// Latents → first block.
    pub conv_in: Conv2d,
    /// Sinusoidal timestep → time embedding.
    pub time_embedding: TimestepEmbedding,
    /// Pooled text and sinusoidal time ids → time embedding.
    pub add_embedding: TimestepEmbedding,
    /// Each block but the last halves the image.
    pub down_blocks: Vec<DownBlock>,
    /// The block at the smallest size.
    pub mid_block: MidBlock,
    /// Each block but the last doubles the image.
    pub up_blocks: Vec<UpBlock>,
    /// Before `conv_out`, with SiLU.
    pub conv_norm_out: GroupNorm,
    /// First block → prediction.
    pub conv_out: Conv2d,
    time_channels: usize,
    addition_time_embed_dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f32,
}

impl UNet {
    /// Loads the denoiser.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &UNetConfig) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let width = config.time_embed_dim;
        let mut skips = vec![channels[0]];
        let down = |i| DownBlock::load(weights, config, i, &mut skips);
        let down_blocks = (0..channels.len()).map(down).collect::<Result<_, _>>()?;
        let up = |i| UpBlock::load(weights, config, i, &mut skips);
        let up_blocks = (0..channels.len()).map(up).collect::<Result<_, _>>()?;
        let embedding = |name: &str, input| TimestepEmbedding::load(&weights.sub(name), input, width);
        let unet = Self {
            conv_in: Conv2d::load(weights, "conv_in", config.in_channels, channels[0], 3)?,
            time_embedding: embedding("time_embedding", channels[0])?,
            add_embedding: embedding("add_embedding", config.projection_class_embeddings_input_dim)?,
            down_blocks,
            mid_block: MidBlock::load(&weights.sub("mid_block"), config)?,
            up_blocks,
            conv_norm_out: GroupNorm::load(
                weights,
                "conv_norm_out",
                config.norm_num_groups,
                channels[0],
                config.norm_eps,
            )?,
            conv_out: Conv2d::load(weights, "conv_out", channels[0], config.out_channels, 3)?,
            time_channels: channels[0],
            addition_time_embed_dim: config.addition_time_embed_dim,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
        };
        weights.finish()?;
        Ok(unet)
    }

    /// Predicts the noise, or the velocity if the checkpoint was trained to.
    ///
    /// `sample` is (B, H, W, `in_channels`), scaled by the sampler, for any H and W. Its dtype, f32 or bf16, is
    /// the dtype that the network computes in. `t` holds one timestep for all images, or one for each. `context`
    /// is the result of [`Self::prepare`]. Returns (B, H, W, `out_channels`).
    ///
    /// # Panics
    /// If the number of timesteps is neither 1 nor B.
    pub fn forward(&self, sample: &Tensor, t: &[f32], context: &Context) -> Tensor {
        self.forward_for_training(sample, t, context, Activations::Keep)
    }

    /// [`Self::forward`] for a backward pass. `activations` says how the blocks' activations are kept until then.
    pub fn forward_for_training(
        &self,
        sample: &Tensor,
        t: &[f32],
        context: &Context,
        activations: Activations,
    ) -> Tensor {
        self.forward_observed(sample, t, context, activations, &mut |_, _| {})
    }

    /// [`Self::forward`] with a callback: `observe` is called with the output of each part, and the part's
    /// checkpoint name.
    pub fn forward_observed(
        &self,
        sample: &Tensor,
        t: &[f32],
        context: &Context,
        activations: Activations,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Tensor {
        let emb = self.time_embed(t, context); // (B, E)
        observe("emb", &emb);
        let emb = ops::silu(&emb); // the input of every ResNet
        let mut x = self.conv_in.forward(sample); // (B, H, W, C)
        observe("conv_in", &x);
        let mut skips = vec![x.clone()];
        for (i, (block, text)) in self.down_blocks.iter().zip(&context.down_blocks).enumerate() {
            x = block.forward(&x, &emb, text, &mut skips, activations);
            observe(&format!("down_blocks.{i}"), &x);
        }
        x = self.mid_block.forward(&x, &emb, &context.mid_block, activations);
        observe("mid_block", &x);
        for (i, (block, text)) in self.up_blocks.iter().zip(&context.up_blocks).enumerate() {
            x = block.forward(&x, &emb, text, &mut skips, activations);
            observe(&format!("up_blocks.{i}"), &x);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)) // (B, H, W, out)
    }

    /// The time embedding (B, E). Always f32, because it is small and must tell neighbouring timesteps apart.
    fn time_embed(&self, t: &[f32], context: &Context) -> Tensor {
        let batch = context.aug_emb.dim(0);
        assert!(t.len() == 1 || t.len() == batch, "one timestep, or one for each of {batch} images");
        let t: Vec<f32> = (0..batch).map(|i| t[i % t.len()]).collect();
        let t_emb = self.sinusoidal(&t, self.time_channels, context.aug_emb.device()); // (B, C)
        self.time_embedding.forward(&t_emb, Some(&context.aug_emb))
    }

    fn sinusoidal(&self, values: &[f32], channels: usize, device: Device) -> Tensor {
        ops::timestep_embedding(values, channels, self.flip_sin_to_cos, self.freq_shift, device)
    }
}

/// The sizes that the UNet's ResNets have in common.
fn resnet_config(config: &UNetConfig) -> ResnetConfig {
    ResnetConfig {
        time_embed_dim: Some(config.time_embed_dim),
        groups: config.norm_num_groups,
        eps: config.norm_eps,
    }
}

module!(UNet {
    conv_in => "conv_in",
    time_embedding => "time_embedding",
    add_embedding => "add_embedding",
    down_blocks => "down_blocks",
    mid_block => "mid_block",
    up_blocks => "up_blocks",
    conv_norm_out => "conv_norm_out",
    conv_out => "conv_out",
});
