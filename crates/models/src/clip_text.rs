//! CLIP's text encoder: `CLIPTextModel` and `CLIPTextModelWithProjection`.
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

use std::collections::BTreeMap;

use calotype_tensor::ops;
use calotype_tensor::{DType, Tensor};

use crate::config::ClipTextConfig;
use crate::nn::{ClipEncoderLayer, ClipLayerConfig, LayerNorm, Linear, Parameter};
use crate::weights::{Weights, WeightsError};

/// Token and position embeddings.
#[derive(Clone)]
pub struct ClipTextEmbeddings {
    /// (vocabulary, C).
    pub token_embedding: Tensor,
    /// (positions, C).
    pub position_embedding: Tensor,
    /// Ids of new tokens, and their embeddings (n, C), f32. They replace those of the table, if it has the same ids.
    pub new_tokens: Option<(Vec<u32>, Parameter)>,
}

impl ClipTextEmbeddings {
    /// The embeddings of token ids, (ids, C).
    fn of_tokens(&self, ids: &[u32]) -> Tensor {
        let table = &self.token_embedding;
        let Some((new, embeddings)) = &self.new_tokens else { return ops::embedding(table, ids) };
        let position = |id: &u32| new.iter().position(|n| n == id);
        let known: Vec<u32> = ids.iter().map(|id| if position(id).is_some() { 0 } else { *id }).collect();
        let known = ops::embedding(table, &known);
        if ids.iter().all(|id| position(id).is_none()) {
            return known;
        }
        let both = ops::cat_batch(&[&known, &embeddings.get().to_dtype(table.dtype())]); // (ids + n, C)
        let source = |(i, id): (usize, &u32)| position(id).map_or(i, |row| ids.len() + row) as u32;
        ops::embedding(&both, &ids.iter().enumerate().map(source).collect::<Vec<_>>())
    }
}

/// A text encoder, with or without a projection of the pooled state.
#[derive(Clone)]
pub struct ClipTextModel {
    /// `embeddings`.
    pub embeddings: ClipTextEmbeddings,
    /// `encoder.layers`.
    pub layers: Vec<ClipEncoderLayer>,
    /// After the last layer.
    pub final_layer_norm: LayerNorm,
    /// C → projection, without bias; `None` in a `CLIPTextModel`.
    pub text_projection: Option<Linear>,
    eos_token_id: u32,
    pooled_as: BTreeMap<u32, u32>,
}

/// The output of a text encoder for B prompts of T tokens.
#[derive(Clone)]
pub struct ClipTextOutput {
    /// (B, T, C): the input of the last layer, not normalised (`hidden_states[-2]`). SDXL conditions on these states.
    pub penultimate: Tensor,
    /// (B, T, C): the states after the final layer norm.
    pub last_hidden_state: Tensor,
    /// (B, C): the last hidden state at the end-of-text token. With a projection: (B, projection).
    pub pooled: Tensor,
}

impl ClipTextModel {
    /// Loads a text encoder that computes in `dtype`. With `projection`, it is a `CLIPTextModelWithProjection`.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(
        weights: &Weights,
        config: &ClipTextConfig,
        projection: bool,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let model = Self::load_part(weights, config, projection, dtype)?;
        weights.finish()?;
        Ok(model)
    }

    /// The same for an encoder that is a part of a network. The caller checks that no tensors are left.
    pub(crate) fn load_part(
        weights: &Weights,
        config: &ClipTextConfig,
        projection: bool,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let width = config.hidden_size;
        let text_model = weights.sub("text_model");
        let embeddings = text_model.sub("embeddings");
        let table = |name: &str, rows| Ok(embeddings.tensor(name, &[rows, width])?.to_dtype(dtype));
        let encoder = text_model.sub("encoder.layers");
        let sizes = ClipLayerConfig {
            width,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            act: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: true,
        };
        let layer = |i: usize| ClipEncoderLayer::load(&encoder.sub(i), sizes);
        Ok(Self {
            embeddings: ClipTextEmbeddings {
                token_embedding: table("token_embedding.weight", config.vocab_size)?,
                position_embedding: table("position_embedding.weight", config.max_position_embeddings)?,
                new_tokens: None,
            },
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            final_layer_norm: LayerNorm::load(&text_model, "final_layer_norm", width, config.layer_norm_eps)?,
            text_projection: match projection {
                true => {
                    Some(Linear::load_unbiased(weights, "text_projection", width, config.projection_dim)?)
                }
                false => None,
            },
            eos_token_id: config.eos_token_id,
            pooled_as: BTreeMap::new(),
        })
    }

    /// Sets the embeddings (ids, C) of the tokens `ids`, which may be new or replace those of the table. This is transformers'
    /// `resize_token_embeddings`, followed by setting the rows. Here the embeddings may also be trained.
    pub fn set_embeddings(&mut self, ids: &[u32], embeddings: Parameter) {
        self.embeddings.new_tokens = Some((ids.to_vec(), embeddings));
    }

    /// Sets the ids that tokens have when the pooled position is found by the largest id. These are the ids that the tokens
    /// would have without the trained weights' files listed before their own.
    pub fn pool_as(&mut self, ids: BTreeMap<u32, u32>) {
        self.pooled_as = ids;
    }

    /// Encodes B prompts of T token ids each. T is at most `max_position_embeddings`. Ids are below `vocab_size`, or have an
    /// embedding from [`Self::set_embeddings`].
    ///
    /// # Panics
    /// If there are no prompts, or their lengths differ.
    pub fn forward(&self, prompts: &[Vec<u32>]) -> ClipTextOutput {
        let mut x = self.embed(prompts);
        let mut penultimate = x.clone();
        for layer in &self.layers {
            penultimate = x;
            x = layer.forward(&penultimate);
        }
        let last_hidden_state = self.final_layer_norm.forward(&x);
        let pooled = self.pool(&last_hidden_state, prompts);
        let pooled = match &self.text_projection {
            Some(projection) => projection.forward(&pooled),
            None => pooled,
        };
        ClipTextOutput { penultimate, last_hidden_state, pooled }
    }

    /// (B, T, C): token embeddings plus position embeddings.
    fn embed(&self, prompts: &[Vec<u32>]) -> Tensor {
        let tokens = prompts[0].len();
        assert!(prompts.iter().all(|ids| ids.len() == tokens), "prompts of one length");
        let ids: Vec<u32> = prompts.concat();
        let positions: Vec<u32> = prompts.iter().flat_map(|_| 0..tokens as u32).collect();
        let x = ops::add(
            &self.embeddings.of_tokens(&ids),
            &ops::embedding(&self.embeddings.position_embedding, &positions),
        );
        x.reshape(&[prompts.len(), tokens, x.last_dim()])
    }

    /// x (B, T, C) → (B, C): the state at each prompt's end-of-text token.
    fn pool(&self, x: &Tensor, prompts: &[Vec<u32>]) -> Tensor {
        let (tokens, channels) = (x.dim(1), x.dim(2));
        let rows = x.reshape(&[prompts.len() * tokens, channels]);
        let at_end = |(i, ids): (usize, &Vec<u32>)| {
            let ids: Vec<u32> = ids.iter().map(|id| self.pooled_as.get(id).copied().unwrap_or(*id)).collect();
            ops::slice_batch(&rows, i * tokens + end_of_text(&ids, self.eos_token_id), 1)
        };
        let pooled: Vec<Tensor> = prompts.iter().enumerate().map(at_end).collect();
        ops::cat_batch(&pooled.iter().collect::<Vec<_>>())
    }
}

/// The position that transformers pools: the first `eos_token_id`. Configs from before transformers 4.31 wrongly have an
/// `eos_token_id` of 2; there it is the first of the largest ids.
fn end_of_text(ids: &[u32], eos_token_id: u32) -> usize {
    let end = match eos_token_id {
        2 => *ids.iter().max().unwrap_or(&0),
        id => id,
    };
    ids.iter().position(|&id| id == end).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the pooled position: the same as in transformers, in both of its conventions.
    #[test]
    fn pools_at_the_end_of_text() {
        let ids = [49406, 7, 49407, 49407];
        assert_eq!(end_of_text(&ids, 2), 2, "the first of the largest ids");
        assert_eq!(end_of_text(&ids, 49407), 2, "the first end of text");
        assert_eq!(end_of_text(&[49406, 49408, 49407, 0], 2), 1, "a new token has the largest id");
        assert_eq!(end_of_text(&[49406, 49408, 49407, 0], 49407), 2, "a new token is not the end");
        assert_eq!(end_of_text(&[49406, 7, 7], 49407), 0, "no end: the first position, as argmax gives");
    }
}
