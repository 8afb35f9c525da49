//! BLIP's text decoder: BERT with cross attention to a picture, one token at a time.

use calotype_tensor::ops::{self, Activation, Mask};
use calotype_tensor::{DType, Tensor};

use super::PictureKeys;
use crate::config::BlipTextConfig;
use crate::nn::{KeyValue, LayerNorm, Linear, Parameter, attend};
use crate::weights::{Weights, WeightsError};

/// The text decoder.
#[derive(Clone)]
pub struct BlipTextDecoder {
    /// `bert.embeddings.word_embeddings` (vocabulary, C).
    pub word_embeddings: Tensor,
    /// `bert.embeddings.position_embeddings` (positions, C).
    pub position_embeddings: Tensor,
    /// `bert.embeddings.LayerNorm`, of a word with its position.
    pub embeddings_norm: LayerNorm,
    /// `bert.encoder.layer`.
    pub layers: Vec<BlipTextLayer>,
    /// `cls.predictions`.
    pub head: BlipTextHead,
}

/// Self-attention, cross attention and MLP. Each is added to its input, and the sum is normalised.
#[derive(Clone)]
pub struct BlipTextLayer {
    /// Self-attention.
    pub attention: BlipTextAttention,
    /// To the picture.
    pub crossattention: BlipTextAttention,
    /// `intermediate.dense`, C → intermediate.
    pub intermediate: Linear,
    /// `output.dense`, intermediate → C.
    pub output: Linear,
    /// `output.LayerNorm`.
    pub output_norm: LayerNorm,
    act: Activation,
}

/// Attention with the norm of its sum.
#[derive(Clone)]
pub struct BlipTextAttention {
    /// `self.query`, C → C.
    pub query: Linear,
    /// `self.key`, C, or the picture's channels, → C.
    pub key: Linear,
    /// `self.value`, C, or the picture's channels, → C.
    pub value: Linear,
    /// `output.dense`, C → C.
    pub output: Linear,
    /// `output.LayerNorm`.
    pub output_norm: LayerNorm,
    /// Heads that the C channels are split into.
    pub heads: usize,
}

/// States → logits.
#[derive(Clone)]
pub struct BlipTextHead {
    /// `transform.dense`, C → C.
    pub dense: Linear,
    /// `transform.LayerNorm`.
    pub norm: LayerNorm,
    /// C → vocabulary; the matrix is that of the word embeddings, where the checkpoint has no other.
    pub decoder: Linear,
    act: Activation,
}

/// The keys and values of a text's tokens, for each layer, each (1, T, C). Empty: a text without tokens.
#[derive(Clone, Default)]
pub struct TextCache(Vec<KeyValue>);

impl TextCache {
    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.0.first().map_or(0, |layer| layer.k.dim(1))
    }
}

impl BlipTextDecoder {
    /// `picture`: the channels of the picture's states.
    pub(super) fn load(
        weights: &Weights,
        config: &BlipTextConfig,
        picture: usize,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let (width, vocabulary) = (config.hidden_size, config.vocab_size);
        let predictions = weights.sub("cls.predictions");
        let bert = weights.sub("bert");
        let embeddings = bert.sub("embeddings");
        let layers = bert.sub("encoder.layer");
        // Of tied matrices, a checkpoint may have either one.
        let only_head = !embeddings.has("word_embeddings.weight") && predictions.has("decoder.weight");
        let words = match only_head && config.tie_word_embeddings {
            true => predictions.tensor("decoder.weight", &[vocabulary, width])?,
            false => embeddings.tensor("word_embeddings.weight", &[vocabulary, width])?,
        };
        let positions =
            embeddings.tensor("position_embeddings.weight", &[config.max_position_embeddings, width])?;
        let layer = |i: usize| BlipTextLayer::load(&layers.sub(i), config, picture);
        Ok(Self {
            word_embeddings: words.to_dtype(dtype),
            position_embeddings: positions.to_dtype(dtype),
            embeddings_norm: LayerNorm::load(&embeddings, "LayerNorm", width, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            head: BlipTextHead::load(&predictions, &embeddings, config)?,
        })
    }

    /// The states of a picture (1, T, channels) as keys and values of each layer.
    pub fn picture_keys(&self, states: &Tensor) -> PictureKeys {
        PictureKeys(self.layers.iter().map(|layer| layer.crossattention.key_value(states)).collect())
    }

    /// See [`super::Blip::step`]. The logits are in the dtype to compute in.
    pub(super) fn step(&self, picture: &PictureKeys, tokens: &[u32], caches: &mut [TextCache]) -> Tensor {
        assert_eq!(tokens.len(), caches.len(), "a token for each text");
        let position = caches.first().expect("at least one text").tokens();
        assert!(caches.iter().all(|cache| cache.tokens() == position), "texts of one length");
        let words = ops::embedding(&self.word_embeddings, tokens);
        let positions = ops::embedding(&self.position_embeddings, &vec![position as u32; tokens.len()]);
        let mut x = self.embeddings_norm.forward(&ops::add(&words, &positions)); // (B, C)
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.step(&x, &picture.0[i], i, caches);
        }
        self.head.forward(&x)
    }
}

impl BlipTextLayer {
    fn load(weights: &Weights, config: &BlipTextConfig, picture: usize) -> Result<Self, WeightsError> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = |name: &str, source| BlipTextAttention::load(&weights.sub(name), config, source);
        Ok(Self {
            attention: attention("attention", width)?,
            crossattention: attention("crossattention", picture)?,
            intermediate: Linear::load(weights, "intermediate.dense", width, inner)?,
            output: Linear::load(weights, "output.dense", inner, width)?,
            output_norm: LayerNorm::load(weights, "output.LayerNorm", width, eps)?,
            act: config.hidden_act.activation(),
        })
    }

    /// x (B, C), a token of each text → (B, C). Layer `i` of each cache takes up the token.
    fn step(&self, x: &Tensor, picture: &KeyValue, i: usize, caches: &mut [TextCache]) -> Tensor {
        let (batch, width) = (x.dim(0), x.dim(1));
        let attention = &self.attention;
        let (q, new) = (attention.query.forward(x), attention.key_value(x));
        let each: Vec<Tensor> = caches
            .iter_mut()
            .enumerate()
            .map(|(b, cache)| {
                let row = |x: &Tensor| ops::slice_batch(x, b, 1);
                let to = cache.add(i, KeyValue { k: row(&new.k), v: row(&new.v) });
                attend(&row(&q).reshape(&[1, 1, width]), &to.k, &to.v, attention.heads, Mask::None)
            })
            .collect();
        let y = ops::cat_batch(&each.iter().collect::<Vec<_>>()).reshape(&[batch, width]);
        let x = attention.add(&y, x);
        // All texts are about one picture: their tokens ask it as the tokens of one text would.
        let cross = &self.crossattention;
        let q = cross.query.forward(&x).reshape(&[1, batch, width]);
        let y = attend(&q, &picture.k, &picture.v, cross.heads, Mask::None).reshape(&[batch, width]);
        let x = cross.add(&y, &x);
        let h = self.intermediate.forward_fused(&x, self.act, None); // (B, intermediate)
        self.output_norm.forward(&self.output.forward_fused(&h, Activation::None, Some(&x)))
    }
}

impl TextCache {
    /// Appends a token's key and value (1, C) of layer `i`: those of all tokens, (1, T, C).
    fn add(&mut self, i: usize, new: KeyValue) -> &KeyValue {
        let width = new.k.last_dim();
        let all = |old: Option<&Tensor>, new: &Tensor| match old {
            None => new.reshape(&[1, 1, width]),
            Some(old) => {
                let rows = ops::cat_batch(&[&old.reshape(&[old.dim(1), width]), new]);
                rows.reshape(&[1, rows.dim(0), width])
            }
        };
        let old = self.0.get(i);
        let grown = KeyValue { k: all(old.map(|o| &o.k), &new.k), v: all(old.map(|o| &o.v), &new.v) };
        if i == self.0.len() {
            self.0.push(grown);
        } else {
            self.0[i] = grown;
        }
        &self.0[i]
    }
}

impl BlipTextAttention {
    /// `source`: the channels of what keys and values are made of.
    fn load(weights: &Weights, config: &BlipTextConfig, source: usize) -> Result<Self, WeightsError> {
        let width = config.hidden_size;
        Ok(Self {
            query: Linear::load(weights, "self.query", width, width)?,
            key: Linear::load(weights, "self.key", source, width)?,
            value: Linear::load(weights, "self.value", source, width)?,
            output: Linear::load(weights, "output.dense", width, width)?,
            output_norm: LayerNorm::load(weights, "output.LayerNorm", width, config.layer_norm_eps)?,
            heads: config.num_attention_heads,
        })
    }

    fn key_value(&self, source: &Tensor) -> KeyValue {
        KeyValue { k: self.key.forward(source), v: self.value.forward(source) }
    }

    /// The output of attention `y` (B, C), added to x (B, C), normalised.
    fn add(&self, y: &Tensor, x: &Tensor) -> Tensor {
        self.output_norm.forward(&self.output.forward_fused(y, Activation::None, Some(x)))
    }
}

impl BlipTextHead {
    fn load(weights: &Weights, embeddings: &Weights, config: &BlipTextConfig) -> Result<Self, WeightsError> {
        let (width, vocabulary) = (config.hidden_size, config.vocab_size);
        let own = weights.has("decoder.weight") || !config.tie_word_embeddings;
        let (weight, _) = match own {
            true => weights.linear("decoder", vocabulary, width, false)?,
            false => embeddings.linear("word_embeddings", vocabulary, width, false)?,
        };
        // The layer adds `decoder.bias`. A checkpoint has the same numbers under both names, or under one.
        let bias = if weights.has("decoder.bias") { "decoder.bias" } else { "bias" };
        let bias = weights.tensor(bias, &[vocabulary])?;
        let head = Self {
            dense: Linear::load(weights, "transform.dense", width, width)?,
            norm: LayerNorm::load(weights, "transform.LayerNorm", width, config.layer_norm_eps)?,
            decoder: Linear { weight, bias: Some(Parameter::fixed(bias)), is_conv1x1: false, lora: None },
            act: config.hidden_act.activation(),
        };
        if weights.has("bias") {
            weights.tensor("bias", &[vocabulary])?;
        }
        Ok(head)
    }

    /// x (B, C) → logits (B, vocabulary).
    fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.dense.forward_fused(x, self.act, None);
        self.decoder.forward(&self.norm.forward(&h))
    }
}
