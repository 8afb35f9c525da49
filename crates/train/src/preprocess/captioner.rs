//! Captions, by BLIP.

use std::path::Path;

use calotype_models::config::{BlipConfig, ImageProcessorConfig};
use calotype_models::tokenizer::WordPieces;
use calotype_models::{Blip, Error};
use calotype_tensor::DType;
use image::RgbImage;

use super::CaptionDecoding;
use super::decoding::{self, Limits};
use super::networks::NotFinite;
use super::pixels::pixels;
use super::wording::mended;

/// The temperature, and the likeliest tokens, that are drawn from; the most tokens of a caption.
const SAMPLING: (f32, usize) = (0.7, 50);
const MOST_TOKENS: usize = 150;
/// The fewest and most tokens of a beam search's caption.
const BEAM_TOKENS: (usize, usize) = (5, 20);

/// A network that writes captions.
pub struct Captioner {
    net: Blip,
    processor: ImageProcessorConfig,
    words: WordPieces,
    config: BlipConfig,
}

impl Captioner {
    /// Opens a folder that transformers saved: a `BlipForConditionalGeneration`, with its vocabulary and, if it is there, the
    /// configuration of its image processor. The network computes in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or belongs to another model.
    pub fn open(path: &Path, dtype: DType) -> Result<Self, Error> {
        let config = BlipConfig::read(path)?;
        let side = config.vision.image_size;
        let processor = ImageProcessorConfig::read(path, ImageProcessorConfig::blip(side), side..=side)?;
        let words = WordPieces::read(path)?;
        Ok(Self { net: Blip::open(path, &config, dtype)?, processor, words, config })
    }

    /// A caption of a picture, in lower case. [`CaptionDecoding::Sample`] draws from the 50 likeliest tokens at temperature 0.7,
    /// [`CaptionDecoding::Beam`] follows 3 texts of 5 to 20 tokens. The seed matters to [`CaptionDecoding::Sample`] alone. The same
    /// picture, decoding and seed give the same caption. A caption may be empty.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    ///
    /// # Panics
    /// If the picture is empty.
    pub fn caption(
        &self,
        picture: &RgbImage,
        decoding: CaptionDecoding,
        seed: u64,
    ) -> Result<String, NotFinite> {
        Ok(mended(&self.words.text(&self.tokens(picture, decoding, seed)?)))
    }

    /// The tokens of a caption, from the token that begins it to the one that ends it, unless it reached the most tokens.
    ///
    /// # Errors
    /// The network's logits are no numbers.
    ///
    /// # Panics
    /// If the picture is empty.
    pub fn tokens(
        &self,
        picture: &RgbImage,
        decoding: CaptionDecoding,
        seed: u64,
    ) -> Result<Vec<u32>, NotFinite> {
        let seen = self.net.see(&pixels(picture, &self.processor));
        let limits = |least, most| Limits::new(&self.config.text, least, most);
        match decoding {
            CaptionDecoding::Sample => {
                decoding::sample(&self.net, &seen, limits(0, MOST_TOKENS), SAMPLING, seed)
            }
            CaptionDecoding::Greedy => decoding::greedy(&self.net, &seen, limits(0, MOST_TOKENS)),
            CaptionDecoding::Beam => decoding::beam(&self.net, &seen, limits(BEAM_TOKENS.0, BEAM_TOKENS.1)),
        }
    }

    /// Tokens as text, as they were said: nothing is mended.
    pub fn text(&self, tokens: &[u32]) -> String {
        self.words.text(tokens)
    }
}
