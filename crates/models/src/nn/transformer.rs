//! The UNet's transformer.

use calotype_tensor::ops::Activation;
use calotype_tensor::{Tensor, checkpoint};

use super::{Activations, Attention, GroupNorm, KeyValue, LayerNorm, Linear, module};
use crate::weights::{Weights, WeightsError};

/// Epsilon of the layer norms.
const LAYER_NORM_EPS: f32 = 1e-5;
/// Epsilon of the group norm at the start (that of the ResNets is in the config).
const GROUP_NORM_EPS: f32 = 1e-6;

/// A linear layer to 4C channels with GEGLU, and a linear layer back to C.
#[derive(Clone)]
pub struct FeedForward {
    /// C → 2 · 4C, halved by GEGLU; `net.0.proj` in the checkpoint.
    pub proj: Linear,
    /// 4C → C; `net.2` in the checkpoint (`net.1` is a dropout).
    pub out: Linear,
}

impl FeedForward {
    /// Loads the layers for C = `channels`.
    pub fn load(weights: &Weights, channels: usize) -> Result<Self, WeightsError> {
        let inner = 4 * channels;
        Ok(Self {
            proj: Linear::load(weights, "net.0.proj", channels, 2 * inner)?,
            out: Linear::load(weights, "net.2", inner, channels)?,
        })
    }

    /// x (B, T, C), residual (B, T, C) → (B, T, C), with the residual added.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let h = self.proj.forward_fused(x, Activation::Geglu, None); // (B, T, 4C)
        self.out.forward_fused(&h, Activation::None, Some(residual))
    }
}

/// Self-attention, cross-attention to the text, and feed-forward. Each is preceded by a layer norm and added to its input.
#[derive(Clone)]
pub struct BasicTransformerBlock {
    /// Before self-attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn1: Attention,
    /// Before cross-attention.
    pub norm2: LayerNorm,
    /// Cross-attention to the text.
    pub attn2: Attention,
    /// Before the feed-forward.
    pub norm3: LayerNorm,
    /// Feed-forward.
    pub ff: FeedForward,
}

impl BasicTransformerBlock {
    /// Loads the block.
    pub fn load(weights: &Weights, config: &Transformer2DConfig) -> Result<Self, WeightsError> {
        let &Transformer2DConfig { channels, heads, cross_attention_dim, .. } = config;
        let norm = |name: &str| LayerNorm::load(weights, name, channels, LAYER_NORM_EPS);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&weights.sub("attn1"), channels, None, heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::load(&weights.sub("attn2"), channels, Some(cross_attention_dim), heads)?,
            norm3: norm("norm3")?,
            ff: FeedForward::load(&weights.sub("ff"), channels)?,
        })
    }

    /// x (B, T, C) → (B, T, C). `text` holds the keys and values of `attn2`.
    pub fn forward(&self, x: &Tensor, text: &KeyValue, activations: Activations) -> Tensor {
        if activations == Activations::Keep {
            return self.run(&x.fork(), &KeyValue { k: text.k.fork(), v: text.v.fork() });
        }
        let block = self.clone();
        let run = move |t: &[Tensor]| block.run(&t[0], &KeyValue { k: t[1].clone(), v: t[2].clone() });
        checkpoint(run, &[x.clone(), text.k.clone(), text.v.clone()])
    }

    fn run(&self, x: &Tensor, text: &KeyValue) -> Tensor {
        let x = self.attn1.forward_self(&self.norm1.forward(x), x);
        let x = self.attn2.forward(&self.norm2.forward(&x), text, &x);
        self.ff.forward(&self.norm3.forward(&x), &x)
    }
}

/// The sizes of a [`Transformer2DModel`].
#[derive(Clone, Copy)]
pub struct Transformer2DConfig {
    /// C.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Channels of the text states.
    pub cross_attention_dim: usize,
    /// Whether the checkpoint stores `proj_in` and `proj_out` as linear layers rather than 1×1 convolutions.
    pub use_linear_projection: bool,
    /// Groups of the norm.
    pub groups: usize,
}

/// Transformer blocks over an image's pixels. The image is added to the result.
#[derive(Clone)]
pub struct Transformer2DModel {
    /// C channels.
    pub norm: GroupNorm,
    /// C → C.
    pub proj_in: Linear,
    /// The blocks.
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    /// C → C.
    pub proj_out: Linear,
}

impl Transformer2DModel {
    /// Loads the transformer.
    pub fn load(weights: &Weights, config: &Transformer2DConfig) -> Result<Self, WeightsError> {
        let channels = config.channels;
        let proj = |name: &str| match config.use_linear_projection {
            true => Linear::load(weights, name, channels, channels),
            false => Linear::load_conv1x1(weights, name, channels, channels),
        };
        let blocks = weights.sub("transformer_blocks");
        let block = |i: usize| BasicTransformerBlock::load(&blocks.sub(i), config);
        Ok(Self {
            norm: GroupNorm::load(weights, "norm", config.groups, channels, GROUP_NORM_EPS)?,
            proj_in: proj("proj_in")?,
            transformer_blocks: (0..config.depth).map(block).collect::<Result<_, _>>()?,
            proj_out: proj("proj_out")?,
        })
    }

    /// The keys and values of the text (B, S, text channels), for each block.
    pub fn key_values(&self, text: &Tensor) -> Vec<KeyValue> {
        self.transformer_blocks.iter().map(|block| block.attn2.key_value(text)).collect()
    }

    /// x (B, H, W, C) → (B, H, W, C). `text` is the result of [`Self::key_values`].
    ///
    /// # Panics
    /// If `text` does not have one entry for each block.
    pub fn forward(&self, x: &Tensor, text: &[KeyValue], activations: Activations) -> Tensor {
        let tokens = [x.dim(0), x.dim(1) * x.dim(2), x.dim(3)]; // (B, T, C)
        let mut h = self.proj_in.forward(&self.norm.forward(x)).reshape(&tokens);
        assert_eq!(self.transformer_blocks.len(), text.len(), "keys and values for every block");
        for (block, text) in self.transformer_blocks.iter().zip(text) {
            h = block.forward(&h, text, activations);
        }
        self.proj_out.forward_fused(&h.reshape(x.shape()), Activation::None, Some(x))
    }
}

module!(FeedForward { proj => "net.0.proj", out => "net.2" });
module!(BasicTransformerBlock {
    norm1 => "norm1",
    attn1 => "attn1",
    norm2 => "norm2",
    attn2 => "attn2",
    norm3 => "norm3",
    ff => "ff",
});
module!(Transformer2DModel {
    norm => "norm",
    proj_in => "proj_in",
    transformer_blocks => "transformer_blocks",
    proj_out => "proj_out",
});
