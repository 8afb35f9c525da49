//! CLIPSeg, which finds what a prompt names in a picture: transformers' `CLIPSegForImageSegmentation`.
//! Lüddecke and Ecker, "Image Segmentation Using Text and Image Prompts", 2022.

mod decoder;

use std::path::Path;

use calotype_tensor::{DType, Tensor};

use crate::Error;
use crate::clip_text::ClipTextModel;
use crate::clip_vision::ClipVisionTower;
use crate::config::ClipSegConfig;
use crate::weights::{Network, Weights, WeightsError, store_for};

pub use decoder::{ClipSegDecoder, TransposedConvolution, UpsamplingHead};

/// The network.
#[derive(Clone)]
pub struct ClipSeg {
    /// `clip.text_model`, with `clip.text_projection`.
    pub text_model: ClipTextModel,
    /// `clip.vision_model`, up to the last layer that the decoder needs.
    pub vision_model: ClipVisionTower,
    /// `decoder`.
    pub decoder: ClipSegDecoder,
    extract_layers: Vec<usize>,
}

/// A picture as the decoder sees it: the outputs of the vision tower's layers that it takes, in its order, each (1, T, C), f32.
#[derive(Clone)]
pub struct SeenPicture(Vec<Tensor>);

impl ClipSeg {
    /// Opens the weights in a folder that transformers saved, for square pictures of `side` pixels, to compute in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or a tensor is missing, surplus or of another shape than the config gives.
    pub fn open(folder: &Path, config: &ClipSegConfig, side: usize, dtype: DType) -> Result<Self, Error> {
        let weights = Weights::open(folder, Network::ClipSeg, None, store_for(dtype))?;
        Ok(Self::load(&weights, config, side, dtype)?)
    }

    /// Loads the network for square pictures of `side` pixels, to compute in `dtype`. Layers of the vision tower after the last one
    /// that the decoder needs are not loaded.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(
        weights: &Weights,
        config: &ClipSegConfig,
        side: usize,
        dtype: DType,
    ) -> Result<Self, WeightsError> {
        let clip = weights.sub("clip");
        let vision = clip.sub("vision_model");
        let model = Self {
            text_model: ClipTextModel::load_part(&clip, &config.text, true, dtype)?,
            vision_model: ClipVisionTower::load(
                &vision,
                &config.vision,
                config.vision_layers(),
                side,
                dtype,
            )?,
            decoder: ClipSegDecoder::load(&weights.sub("decoder"), config)?,
            extract_layers: config.extract_layers.clone(),
        };
        for i in config.vision_layers()..config.vision.num_hidden_layers {
            vision.sub("encoder.layers").sub(i).skip();
        }
        // What only CLIP's comparison of a text with a picture uses.
        for unused in [vision.sub("post_layernorm"), clip.sub("visual_projection")] {
            unused.skip();
        }
        clip.skip_tensor("logit_scale");
        weights.finish()?;
        Ok(model)
    }

    /// Prompts of one length → (B, projection), in the dtype to compute in.
    ///
    /// # Panics
    /// If there are no prompts, their lengths differ, or a token is not below `vocab_size`.
    pub fn prompts(&self, ids: &[Vec<u32>]) -> Tensor {
        self.text_model.forward(ids).pooled
    }

    /// A picture (1, S, S, 3), f32, normalised, with S the side that the network was loaded for, as the decoder sees it.
    ///
    /// # Panics
    /// If the picture has another size.
    pub fn see(&self, picture: &Tensor) -> SeenPicture {
        // Hidden state 0 is the first layer's input.
        let states = self.vision_model.hidden_states(picture, |_| true);
        let taken = self.extract_layers.iter().rev().map(|layer| states[layer + 1].to_dtype(DType::F32));
        SeenPicture(taken.collect())
    }

    /// The logits (side, side), f32, of a prompt (1, projection) in a picture. The decoder, which is small, computes in f32. With three
    /// transposed convolutions, a side is a whole number of patches times the square of a fourth of a patch's side, otherwise a whole
    /// number of patches.
    pub fn logits(&self, picture: &SeenPicture, prompt: &Tensor) -> Tensor {
        self.decoder.forward(&picture.0, &prompt.to_dtype(DType::F32))
    }
}
