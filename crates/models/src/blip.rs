//! BLIP, which writes captions: transformers' `BlipForConditionalGeneration`.
//! Li et al., "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and Generation", 2022.

mod text;
mod vision;

use std::path::Path;

use calotype_tensor::{DType, Tensor};

use crate::Error;
use crate::config::BlipConfig;
use crate::nn::KeyValue;
use crate::weights::{Network, Weights, WeightsError, store_for};

pub use text::{BlipTextAttention, BlipTextDecoder, BlipTextHead, BlipTextLayer, TextCache};
pub use vision::{BlipAttention, BlipEncoderLayer, BlipVisionModel};

/// The network.
#[derive(Clone)]
pub struct Blip {
    /// `vision_model`.
    pub vision_model: BlipVisionModel,
    /// `text_decoder`.
    pub text_decoder: BlipTextDecoder,
    dtype: DType,
}

/// A picture as the text decoder sees it: the keys and values of its cross attention, for each layer, each (1, T, C).
#[derive(Clone)]
pub struct PictureKeys(pub(crate) Vec<KeyValue>);

impl Blip {
    /// Opens the weights in a folder that transformers saved, to compute in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or a tensor is missing, surplus or of another shape than the config gives.
    pub fn open(folder: &Path, config: &BlipConfig, dtype: DType) -> Result<Self, Error> {
        let weights = Weights::open(folder, Network::Blip, None, store_for(dtype))?;
        Ok(Self::load(&weights, config, dtype)?)
    }

    /// Loads the network, which computes in `dtype`.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &BlipConfig, dtype: DType) -> Result<Self, WeightsError> {
        let vision_model = BlipVisionModel::load(&weights.sub("vision_model"), &config.vision, dtype)?;
        let width = config.vision.hidden_size;
        let text_decoder = BlipTextDecoder::load(&weights.sub("text_decoder"), &config.text, width, dtype)?;
        weights.finish()?;
        Ok(Self { vision_model, text_decoder, dtype })
    }

    /// A picture (1, S, S, 3), f32, normalised, with S the config's `image_size`, as the text decoder sees it.
    ///
    /// # Panics
    /// If the picture has another size.
    pub fn see(&self, picture: &Tensor) -> PictureKeys {
        self.text_decoder.picture_keys(&self.vision_model.forward(picture))
    }

    /// An empty text, to which [`Self::step`] adds tokens.
    pub fn empty_text(&self) -> TextCache {
        TextCache::default()
    }

    /// Adds a token to each of B texts of one length about one picture: the logits (B, vocabulary), f32, of the token after it. Of each
    /// text, `caches` has the tokens before.
    ///
    /// # Panics
    /// If there is no text, a text has reached `max_position_embeddings`, their lengths differ, or a token is not below `vocab_size`.
    pub fn step(&self, picture: &PictureKeys, tokens: &[u32], caches: &mut [TextCache]) -> Tensor {
        self.text_decoder.step(picture, tokens, caches).to_dtype(DType::F32)
    }

    /// The dtype that the network computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}
