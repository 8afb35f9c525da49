//! CLIP's vision tower: `CLIPVisionModel`.
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

use calotype_tensor::ops;
use calotype_tensor::{Tensor, Weight};

use crate::config::ClipVisionConfig;
use crate::nn::{ClipEncoderLayer, ClipLayerConfig, LayerNorm, Linear, Parameter};
use crate::weights::{Weights, WeightsError};

/// Patches and the class token, with their positions.
#[derive(Clone)]
pub struct ClipVisionEmbeddings {
    /// (1, 1, C): stands for the whole picture.
    pub class_embedding: Tensor,
    /// 3 · patch² → C, without bias. The checkpoint has a convolution whose stride is the patch's side; over patches that do not
    /// overlap, the two are the same.
    pub patch_embedding: Linear,
    /// (1, 1 + patches, C).
    pub position_embedding: Tensor,
}

/// The vision tower.
#[derive(Clone)]
pub struct ClipVisionModel {
    /// `embeddings`.
    pub embeddings: ClipVisionEmbeddings,
    /// Before the first layer; so spelt in checkpoints.
    pub pre_layrnorm: LayerNorm,
    /// `encoder.layers`.
    pub layers: Vec<ClipEncoderLayer>,
    /// Of the class token, after the last layer.
    pub post_layernorm: LayerNorm,
    /// The side of a picture and of a patch, in pixels.
    sides: (usize, usize),
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

impl ClipVisionModel {
    /// Loads the tower below `weights`, which computes in f32. The caller checks that no tensors are left.
    ///
    /// # Errors
    /// A tensor is missing or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &ClipVisionConfig) -> Result<Self, WeightsError> {
        let (width, side, tokens) = (config.hidden_size, config.patch_size, 1 + config.patches());
        let embeddings = weights.sub("embeddings");
        let patch = embeddings.tensor("patch_embedding.weight", &[width, 3, side, side])?;
        let patch = Weight::from_tensor(&patch.reshape(&[width, 3 * side * side]));
        let position = embeddings.tensor("position_embedding.weight", &[tokens, width])?;
        let norm = |name: &str| LayerNorm::load(weights, name, width, config.layer_norm_eps);
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
            embeddings: ClipVisionEmbeddings {
                class_embedding: embeddings.tensor("class_embedding", &[width])?.reshape(&[1, 1, width]),
                patch_embedding: Linear {
                    weight: Parameter::fixed(patch),
                    bias: None,
                    is_conv1x1: false,
                    lora: None,
                },
                position_embedding: position.reshape(&[1, tokens, width]),
            },
            pre_layrnorm: norm("pre_layrnorm")?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            post_layernorm: norm("post_layernorm")?,
            sides: (config.image_size, side),
        })
    }

    /// pictures (B, S, S, 3), normalised, with S the config's `image_size`. `chosen`: the numbers of the hidden states to
    /// return, from 0 to the number of layers, each above the one before.
    ///
    /// # Panics
    /// If the pictures have another size.
    pub fn forward(&self, pictures: &Tensor, chosen: &[usize]) -> ClipVisionOutput {
        let mut x = self.pre_layrnorm.forward(&self.embed(pictures)); // (B, T, C)
        let mut hidden_states = Vec::new();
        for i in 0..=self.layers.len() {
            if chosen.contains(&i) {
                hidden_states.push(x.clone());
            }
            if let Some(layer) = self.layers.get(i) {
                x = layer.forward(&x);
            }
        }
        let (batch, tokens, width) = (x.dim(0), x.dim(1), x.dim(2));
        let rows = x.reshape(&[batch * tokens, width]);
        let class: Vec<Tensor> = (0..batch).map(|i| ops::slice_batch(&rows, i * tokens, 1)).collect();
        let class = ops::cat_batch(&class.iter().collect::<Vec<_>>()); // (B, C)
        ClipVisionOutput { hidden_states, pooled: self.post_layernorm.forward(&class), last_hidden_state: x }
    }

    /// pictures (B, S, S, 3) → (B, T, C): the class token, then the patches row by row, with their positions.
    fn embed(&self, pictures: &Tensor) -> Tensor {
        let (side, patch) = self.sides;
        let batch = pictures.dim(0);
        assert_eq!(pictures.shape(), [batch, side, side, 3], "pictures of the tower's size");
        let embedded = self.embeddings.patch_embedding.forward(&patches(pictures, patch)); // (B, P, C)
        let tokens = |i| {
            let rows = embedded.reshape(&[batch * embedded.dim(1), embedded.dim(2)]);
            let own = ops::slice_batch(&rows, i * embedded.dim(1), embedded.dim(1));
            let class = self.embeddings.class_embedding.reshape(&[1, embedded.dim(2)]);
            let all = ops::cat_batch(&[&class, &own]);
            let positions = self.embeddings.position_embedding.reshape(all.shape());
            let sum = ops::add(&all, &positions);
            sum.reshape(&[1, sum.dim(0), sum.dim(1)])
        };
        let each: Vec<Tensor> = (0..batch).map(tokens).collect();
        ops::cat_batch(&each.iter().collect::<Vec<_>>())
    }
}

/// pictures (B, S, S, 3) → (B, patches, 3 · patch²), in the order of a convolution's weight: channel, row, column. What is left at
/// the right and below, where the patch does not divide S, is left out.
fn patches(pictures: &Tensor, patch: usize) -> Tensor {
    let (batch, side) = (pictures.dim(0), pictures.dim(1));
    let (pixels, across) = (pictures.to_vec(), side / patch);
    let mut out = Vec::with_capacity(batch * across * across * 3 * patch * patch);
    for image in pixels.chunks(side * side * 3) {
        for corner in (0..across * across).map(|i| (i / across * patch, i % across * patch)) {
            for i in 0..3 * patch * patch {
                let (channel, row, column) = (i / (patch * patch), i / patch % patch, i % patch);
                out.push(image[((corner.0 + row) * side + corner.1 + column) * 3 + channel]);
            }
        }
    }
    Tensor::from_vec(out, &[batch, across * across, 3 * patch * patch])
}
