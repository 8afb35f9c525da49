//! CLIP's vision tower: `CLIPVisionModel`.
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

use calotype_tensor::ops;
use calotype_tensor::{DType, Tensor};

use crate::config::ClipVisionConfig;
use crate::nn::{ClipEncoderLayer, ClipLayerConfig, LayerNorm, VisionEmbeddings, resample_positions};
use crate::weights::{Weights, WeightsError};

/// The vision tower up to its last layer, or to an earlier one.
#[derive(Clone)]
pub struct ClipVisionTower {
    /// `embeddings`.
    pub embeddings: VisionEmbeddings,
    /// Before the first layer; so spelt in checkpoints.
    pub pre_layrnorm: LayerNorm,
    /// `encoder.layers`.
    pub layers: Vec<ClipEncoderLayer>,
}

/// The whole vision tower.
#[derive(Clone)]
pub struct ClipVisionModel {
    /// All but `post_layernorm`.
    pub tower: ClipVisionTower,
    /// Of the class token, after the last layer.
    pub post_layernorm: LayerNorm,
}

/// The output of a vision tower for B pictures, each of T = 1 + patches tokens.
#[derive(Clone)]
pub struct ClipVisionOutput {
    /// (B, T, C): transformers' `hidden_states` of the chosen numbers, in their order; 0 is the input of the first layer.
    pub hidden_states: Vec<Tensor>,
    /// (B, T, C): the states after the last layer, not normalised.
    pub last_hidden_state: Tensor,
    /// (B, C): the class token's state, normalised.
    pub pooled: Tensor,
}

impl ClipVisionTower {
    /// Loads the first `layers` layers of the tower below `weights`, for square pictures of `side` pixels, to compute in `dtype`. Positions
    /// for pictures of another side than the config's are interpolated. The caller checks that no tensors are left.
    ///
    /// # Errors
    /// A tensor is missing or of another shape than the config gives.
    pub fn load(
        weights: &Weights,
        config: &ClipVisionConfig,
        layers: usize,
        side: usize,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let (width, patch, tokens) = (config.hidden_size, config.patch_size, 1 + config.patches());
        let embeddings = weights.sub("embeddings");
        let class = embeddings.tensor("class_embedding", &[width])?;
        let positions = embeddings.tensor("position_embedding.weight", &[tokens, width])?;
        let positions = resample_positions(&positions, side / patch);
        let sizes = ClipLayerConfig {
            width,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            act: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: false,
        };
        let encoder = weights.sub("encoder.layers");
        let layer = |i: usize| ClipEncoderLayer::load(&encoder.sub(i), sizes);
        Ok(Self {
            embeddings: VisionEmbeddings::load(&embeddings, [class, positions], [side, patch], false, dtype)?,
            pre_layrnorm: LayerNorm::load(weights, "pre_layrnorm", width, config.layer_norm_eps)?,
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
        })
    }

    /// pictures (B, S, S, 3), f32, normalised → transformers' `hidden_states`, each (B, T, C): the input of the first layer, then the
    /// output of each layer. Those for which `keep` is false are left out.
    ///
    /// # Panics
    /// If the pictures have another size.
    pub fn hidden_states(&self, pictures: &Tensor, keep: impl Fn(usize) -> bool) -> Vec<Tensor> {
        let mut x = self.pre_layrnorm.forward(&self.embeddings.forward(pictures)); // (B, T, C)
        let mut states = Vec::new();
        for i in 0..=self.layers.len() {
            if keep(i) {
                states.push(x.clone());
            }
            if let Some(layer) = self.layers.get(i) {
                x = layer.forward(&x);
            }
        }
        states
    }
}

impl ClipVisionModel {
    /// Loads the tower below `weights`, which computes in f32. The caller checks that no tensors are left.
    ///
    /// # Errors
    /// A tensor is missing or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &ClipVisionConfig) -> Result<Self, WeightsError> {
        let (layers, side) = (config.num_hidden_layers, config.image_size);
        Ok(Self {
            tower: ClipVisionTower::load(weights, config, layers, side, DType::F32)?,
            post_layernorm: LayerNorm::load(
                weights,
                "post_layernorm",
                config.hidden_size,
                config.layer_norm_eps,
            )?,
        })
    }

    /// pictures (B, S, S, 3), normalised, with S the config's `image_size`. `chosen`: the numbers of the hidden states to
    /// return, from 0 to the number of layers, each above the one before.
    ///
    /// # Panics
    /// If the pictures have another size.
    pub fn forward(&self, pictures: &Tensor, chosen: &[usize]) -> ClipVisionOutput {
        let last = self.tower.layers.len();
        let mut hidden_states = self.tower.hidden_states(pictures, |i| i == last || chosen.contains(&i));
        let x = hidden_states.last().expect("the last state is kept").clone();
        if !chosen.contains(&last) {
            hidden_states.pop();
        }
        let (batch, tokens, width) = (x.dim(0), x.dim(1), x.dim(2));
        let rows = x.reshape(&[batch * tokens, width]);
        let class: Vec<Tensor> = (0..batch).map(|i| ops::slice_batch(&rows, i * tokens, 1)).collect();
        let class = ops::cat_batch(&class.iter().collect::<Vec<_>>()); // (B, C)
        ClipVisionOutput { hidden_states, pooled: self.post_layernorm.forward(&class), last_hidden_state: x }
    }
}
