//! BLIP's vision tower.

use calotype_tensor::ops::{self, Activation, Mask};
use calotype_tensor::{DType, Tensor};

use crate::config::BlipVisionConfig;
use crate::nn::{ClipMlp, LayerNorm, Linear, VisionEmbeddings, attend};
use crate::weights::{Weights, WeightsError};

/// The vision tower.
#[derive(Clone)]
pub struct BlipVisionModel {
    /// `embeddings`.
    pub embeddings: VisionEmbeddings,
    /// `encoder.layers`.
    pub layers: Vec<BlipEncoderLayer>,
    /// Of all tokens, after the last layer.
    pub post_layernorm: LayerNorm,
}

/// Self-attention and MLP. Each is preceded by a layer norm and added to its input.
#[derive(Clone)]
pub struct BlipEncoderLayer {
    /// Before self-attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention.
    pub self_attn: BlipAttention,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// MLP.
    pub mlp: ClipMlp,
}

/// Self-attention.
#[derive(Clone)]
pub struct BlipAttention {
    /// C → 3C: queries, keys and values.
    pub qkv: Linear,
    /// C → C.
    pub projection: Linear,
    /// Heads that the C channels are split into.
    pub heads: usize,
}

impl BlipVisionModel {
    pub(super) fn load(
        weights: &Weights,
        config: &BlipVisionConfig,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let (width, side, patch) = (config.hidden_size, config.image_size, config.patch_size);
        let embeddings = weights.sub("embeddings");
        let tokens = 1 + (side / patch).pow(2);
        let class = embeddings.tensor("class_embedding", &[1, 1, width])?;
        let positions = embeddings.tensor("position_embedding", &[1, tokens, width])?;
        let encoder = weights.sub("encoder.layers");
        let layer = |i: usize| BlipEncoderLayer::load(&encoder.sub(i), config);
        Ok(Self {
            embeddings: VisionEmbeddings::load(&embeddings, [class, positions], [side, patch], true, dtype)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            post_layernorm: LayerNorm::load(weights, "post_layernorm", width, config.layer_norm_eps)?,
        })
    }

    /// pictures (B, S, S, 3), f32, normalised → (B, 1 + patches, C).
    ///
    /// # Panics
    /// If the pictures have another size than the config gives.
    pub fn forward(&self, pictures: &Tensor) -> Tensor {
        let x = self.embeddings.forward(pictures);
        self.post_layernorm.forward(&self.layers.iter().fold(x, |x, layer| layer.forward(&x)))
    }
}

impl BlipEncoderLayer {
    fn load(weights: &Weights, config: &BlipVisionConfig) -> Result<Self, WeightsError> {
        let width = config.hidden_size;
        let norm = |name: &str| LayerNorm::load(weights, name, width, config.layer_norm_eps);
        let attention = weights.sub("self_attn");
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            self_attn: BlipAttention {
                qkv: Linear::load(&attention, "qkv", width, 3 * width)?,
                projection: Linear::load(&attention, "projection", width, width)?,
                heads: config.num_attention_heads,
            },
            layer_norm2: norm("layer_norm2")?,
            mlp: ClipMlp::load(&weights.sub("mlp"), width, config.intermediate_size, config.hidden_act)?,
        })
    }

    /// x (B, T, C) → (B, T, C).
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.self_attn.forward(&self.layer_norm1.forward(x), x);
        self.mlp.forward(&self.layer_norm2.forward(&x), &x)
    }
}

impl BlipAttention {
    fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let width = x.last_dim();
        let qkv = self.qkv.forward(x); // (B, T, 3C)
        let [q, k, v] = [0, 1, 2].map(|i| ops::slice_last(&qkv, i * width, width));
        let y = attend(&q, &k, &v, self.heads, Mask::None);
        self.projection.forward_fused(&y, Activation::None, Some(residual))
    }
}
