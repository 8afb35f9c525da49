//! Masks of what a prompt names, by CLIPSeg.

use std::path::Path;

use calotype_models::config::{ClipSegConfig, ImageProcessorConfig, Resample};
use calotype_models::{ClipSeg, Error, Tokenizer, shorten};
use calotype_sdxl::ArgumentError;
use calotype_tensor::DType;
use calotype_tensor::Tensor;
use image::{GrayImage, RgbImage};

use super::networks::{NotFinite, finite};
use super::pixels::pixels;
use crate::pillow::resize;

/// Added to every probability, so that no part of a picture counts as nothing.
const BIAS: f32 = 0.01;

/// A network that finds what a prompt names.
pub struct Segmenter {
    net: ClipSeg,
    processor: ImageProcessorConfig,
    tokenizer: Tokenizer,
    nothing: Tensor,
}

/// A prompt, as the network takes it.
#[derive(Clone)]
pub struct Prompt(Tensor);

/// What was found of a prompt in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Segmented {
    /// Of the picture's size. 255 where the prompt is likeliest, however likely that is.
    pub mask: GrayImage,
    /// The largest probability of a pixel, from 0 to 1: below some 0.3, nothing of the kind was found.
    pub largest: f32,
}

impl Segmenter {
    /// Opens a folder that transformers saved: a `CLIPSegForImageSegmentation`, with its tokenizer and, if it is there, the
    /// configuration of its image processor. The network computes in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or belongs to another model.
    pub fn open(path: &Path, dtype: DType) -> Result<Self, Error> {
        let config = ClipSegConfig::read(path)?;
        let processor = ImageProcessorConfig::read(path, ImageProcessorConfig::clipseg(), config.sides())?;
        let (rows, positions) = (config.text.vocab_size, config.text.max_position_embeddings);
        let tokenizer = Tokenizer::load(path)?.for_encoder(rows, positions)?;
        let nothing = tokenizer.encode("")?.ids;
        let net = ClipSeg::open(path, &config, processor.side, dtype)?;
        Ok(Self { nothing: net.prompts(&[nothing]), net, processor, tokenizer })
    }

    /// A prompt, encoded once for all pictures.
    ///
    /// # Errors
    /// The prompt has more tokens than the network reads; the error has the words that would be cut off. The tokenizer does not know
    /// a part of the prompt.
    pub fn prompt(&self, text: &str) -> Result<Prompt, calotype_sdxl::Error> {
        let encoding = self.tokenizer.encode(text)?;
        if let Some(cut) = encoding.truncated {
            let (length, cut) = (self.tokenizer.length(), shorten(&cut));
            let expected = format!("at most {length} tokens (the segmenter would not read {cut:?})");
            let found = format!("{} tokens", self.tokenizer.count(text)?);
            return Err(ArgumentError::new("mask_target_prompts", expected, found).into());
        }
        Ok(Prompt(self.net.prompts(&[encoding.ids])))
    }

    /// Finds what a prompt names. The probability of a pixel is that of the prompt against an empty one, after the logits of both have
    /// been divided by `temperature`, which is above 0; the higher it is, the softer are the mask's edges.
    ///
    /// # Errors
    /// The network's logits are no numbers.
    ///
    /// # Panics
    /// If the picture is empty.
    pub fn segment(
        &self,
        picture: &RgbImage,
        prompt: &Prompt,
        temperature: f32,
    ) -> Result<Segmented, NotFinite> {
        let seen = self.net.see(&pixels(picture, &self.processor));
        let [found, nothing] = [&prompt.0, &self.nothing].map(|prompt| self.net.logits(&seen, prompt));
        let side = found.dim(0);
        let (found, nothing) = (finite(found.f32s())?, finite(nothing.f32s())?);
        let probability =
            |(found, nothing): (&f32, &f32)| 1.0 / (1.0 + ((nothing - found) / temperature).exp());
        let probabilities: Vec<f32> = found.iter().zip(nothing).map(probability).collect();
        let largest = probabilities.iter().copied().fold(0.0, f32::max);
        let most = (largest + BIAS).clamp(0.0, 1.0);
        // A cast cuts what is no whole number.
        let grey: Vec<u8> =
            probabilities.iter().map(|p| (255.0 * (p + BIAS).clamp(0.0, 1.0) / most) as u8).collect();
        let (width, height) = picture.dimensions();
        let size = [width as usize, height as usize];
        let mask = resize(&grey, side, 1, [side, side], size, Resample::Bicubic);
        let mask = GrayImage::from_raw(width, height, mask).expect("a byte for each pixel");
        Ok(Segmented { mask, largest })
    }
}
