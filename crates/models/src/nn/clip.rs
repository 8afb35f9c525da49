//! CLIP's transformer layer, which its text and vision towers share.

use calotype_tensor::Tensor;
use calotype_tensor::ops::{Activation, Mask};

use super::{LayerNorm, Linear, attend};
use crate::config::HiddenAct;
use crate::weights::{Weights, WeightsError};

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub struct ClipLayerConfig {
    /// Channels, C.
    pub width: usize,
    /// Channels inside the MLP.
    pub intermediate: usize,
    /// Attention heads; divides C.
    pub heads: usize,
    /// The MLP's activation.
    pub act: HiddenAct,
    /// Epsilon of the layer norms.
    pub eps: f32,
    /// Whether a token attends to itself and to earlier tokens only, as in the text tower.
    pub causal: bool,
}

/// Self-attention.
#[derive(Clone)]
pub struct ClipAttention {
    /// C → C.
    pub q_proj: Linear,
    /// C → C.
    pub k_proj: Linear,
    /// C → C.
    pub v_proj: Linear,
    /// C → C.
    pub out_proj: Linear,
    /// Heads that the C channels are split into.
    pub heads: usize,
    /// Whether a token attends to itself and to earlier tokens only.
    pub causal: bool,
}

/// Two linear layers with an activation between.
#[derive(Clone)]
pub struct ClipMlp {
    /// C → intermediate.
    pub fc1: Linear,
    /// Intermediate → C.
    pub fc2: Linear,
    /// The activation between the two.
    pub act: Activation,
}

/// Self-attention and MLP. Each is preceded by a layer norm and added to its input.
#[derive(Clone)]
pub struct ClipEncoderLayer {
    /// Before self-attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention.
    pub self_attn: ClipAttention,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// MLP.
    pub mlp: ClipMlp,
}

impl ClipEncoderLayer {
    pub(crate) fn load(weights: &Weights, config: ClipLayerConfig) -> Result<Self, WeightsError> {
        let width = config.width;
        let norm = |name: &str| LayerNorm::load(weights, name, width, config.eps);
        let attn = weights.sub("self_attn");
        let proj = |name: &str| Linear::load(&attn, name, width, width);
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            self_attn: ClipAttention {
                q_proj: proj("q_proj")?,
                k_proj: proj("k_proj")?,
                v_proj: proj("v_proj")?,
                out_proj: proj("out_proj")?,
                heads: config.heads,
                causal: config.causal,
            },
            layer_norm2: norm("layer_norm2")?,
            mlp: ClipMlp::load(&weights.sub("mlp"), width, config.intermediate, config.act)?,
        })
    }

    /// x (B, T, C) → (B, T, C).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.self_attn.forward(&self.layer_norm1.forward(x), x);
        self.mlp.forward(&self.layer_norm2.forward(&x), &x)
    }

    /// The same with the norms after the sums: x (B, T, C) → (B, T, C).
    pub(crate) fn forward_post_norm(&self, x: &Tensor) -> Tensor {
        let x = self.layer_norm1.forward(&self.self_attn.forward(x, x));
        self.layer_norm2.forward(&self.mlp.forward(&x, &x))
    }
}

impl ClipAttention {
    fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let (q, k, v) = (self.q_proj.forward(x), self.k_proj.forward(x), self.v_proj.forward(x));
        let mask = if self.causal { Mask::Causal } else { Mask::None };
        let y = attend(&q, &k, &v, self.heads, mask);
        self.out_proj.forward_fused(&y, Activation::None, Some(residual))
    }
}

impl ClipMlp {
    pub(crate) fn load(
        weights: &Weights,
        width: usize,
        inner: usize,
        act: HiddenAct,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            fc1: Linear::load(weights, "fc1", width, inner)?,
            fc2: Linear::load(weights, "fc2", inner, width)?,
            act: act.activation(),
        })
    }

    /// x (B, T, C) → residual (B, T, C) + MLP(x).
    pub(crate) fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let h = self.fc1.forward_fused(x, self.act, None); // (B, T, intermediate)
        self.fc2.forward_fused(&h, Activation::None, Some(residual))
    }
}
