//! A checked prediction request, as the pipeline takes it.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use crate::error::ArgumentError;
use crate::input::{InputImage, InputMask};
use crate::prompt::PromptSyntax;
use crate::samplers::{Sampler, Spacing};

/// The published share of the steps that change a picture.
const STRENGTH: f64 = 0.8;
/// The published share of the noise that the base model removes before the refiner.
const HIGH_NOISE_FRAC: f64 = 0.8;

/// The ways to use a refiner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refine {
    /// The base model alone.
    NoRefiner,
    /// The refiner takes over the last, least noisy steps.
    ExpertEnsembleRefiner,
    /// The refiner goes over the finished latents.
    BaseImageRefiner,
}

/// The pictures that a prediction makes. [`PredictPlan::default`] has the published defaults, and a random seed.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictPlan {
    /// The text that describes the picture.
    pub prompt: String,
    /// The text that guidance moves away from. If it is empty,
    /// [`Options::empty_negative`](crate::pipeline::Options) applies.
    pub negative_prompt: String,
    /// A picture to begin with, in place of noise alone. It is scaled to cover `width` × `height`, and its middle is used.
    pub image: Option<InputImage>,
    /// The parts of `image` that are painted. The others are preserved.
    pub mask: Option<InputMask>,
    /// The share of the steps that change `image`, from 0 to 1. At 1, only a little of `image` is left, with a mask nothing.
    pub prompt_strength: f64,
    /// Width in pixels. The pipeline checks that it is a multiple of the pixels of one latent.
    pub width: usize,
    /// Height in pixels, with the same condition.
    pub height: usize,
    /// The number of pictures, at least 1.
    pub num_outputs: usize,
    /// The sampler.
    pub scheduler: &'static Sampler,
    /// The selection of timesteps. `None`: that of the model's scheduler.
    pub timestep_spacing: Option<Spacing>,
    /// Denoising steps, at least 1.
    pub steps: usize,
    /// The way to use the refiner. Any but [`Refine::NoRefiner`] needs [`Pipeline::with_refiner`](crate::Pipeline::with_refiner).
    pub refine: Refine,
    /// For [`Refine::ExpertEnsembleRefiner`]: the share of the training timesteps that the base model is for, from 0 to 1.
    pub high_noise_frac: f64,
    /// For [`Refine::BaseImageRefiner`]: the steps of the refiner's schedule, of which it makes the last 30 %. `None`: `steps`.
    pub refine_steps: Option<usize>,
    /// The scale of classifier-free guidance, at least 1; 1 means no guidance.
    pub guidance_scale: f64,
    /// The factor of all LoRAs, in addition to their own scales.
    pub lora_scale: f64,
    /// Files of trained weights, which are added up in this order.
    pub replicate_weights: Vec<PathBuf>,
    /// The scales of these files, in their order. A file without one has `lora_scale`.
    pub file_scales: Vec<Option<f64>>,
    /// How the prompts are read.
    pub prompt_syntax: PromptSyntax,
    /// Whether the pictures get the invisible watermark ([`crate::watermark`]). Pictures below 256 pixels in width or height get
    /// none.
    pub apply_watermark: bool,
    /// The seed of the first picture. Picture i has the seed `seed + i` (wrapping).
    pub seed: u64,
}

impl Default for PredictPlan {
    fn default() -> PredictPlan {
        PredictPlan {
            prompt: "An astronaut riding a rainbow unicorn".into(),
            negative_prompt: String::new(),
            image: None,
            mask: None,
            prompt_strength: STRENGTH,
            width: 1024,
            height: 1024,
            num_outputs: 1,
            scheduler: Sampler::k_euler(),
            timestep_spacing: None,
            steps: 50,
            refine: Refine::NoRefiner,
            high_noise_frac: HIGH_NOISE_FRAC,
            refine_steps: None,
            guidance_scale: 7.5,
            lora_scale: 0.6,
            replicate_weights: Vec::new(),
            file_scales: Vec::new(),
            prompt_syntax: PromptSyntax::default(),
            apply_watermark: true,
            seed: random_seed(),
        }
    }
}

impl PredictPlan {
    /// The scale of file `i` of `replicate_weights`.
    pub fn file_scale(&self, i: usize) -> f64 {
        self.file_scales.get(i).copied().flatten().unwrap_or(self.lora_scale)
    }

    /// The seed of picture `i`.
    pub fn image_seed(&self, i: usize) -> u64 {
        self.seed.wrapping_add(i as u64)
    }

    /// Warns about each setting that has no effect on the plan's pictures, unless it has its default.
    pub(crate) fn warn_about_unused(&self) {
        let (image, refine) = (self.image.is_some(), self.refine);
        let unused = [
            ("prompt_strength", "image", !image && self.prompt_strength != STRENGTH),
            (
                "high_noise_frac",
                "refine=expert_ensemble_refiner",
                refine != Refine::ExpertEnsembleRefiner && self.high_noise_frac != HIGH_NOISE_FRAC,
            ),
            (
                "refine_steps",
                "refine=base_image_refiner",
                refine != Refine::BaseImageRefiner && self.refine_steps.is_some(),
            ),
        ];
        for (field, needed, _) in unused.iter().filter(|(.., unused)| *unused) {
            tracing::warn!("{field}: no effect without {needed}");
        }
    }
}

/// Checks that a mask comes with the picture that it is for.
///
/// # Errors
/// There is a mask without a picture.
pub fn check_mask(mask: bool, image: bool) -> Result<(), ArgumentError> {
    if mask && !image {
        return Err(ArgumentError::new("image", "the picture that the mask is for", "none"));
    }
    Ok(())
}

/// A random seed from 0 to 2³² − 1, because torch's CPU generator uses 32 bits only.
pub fn random_seed() -> u64 {
    // The keys of std's hash maps come from the system's generator.
    RandomState::new().hash_one(()) >> 32
}

/// Checks that a side of a picture is a whole number of latents, of `scale` pixels each.
///
/// # Errors
/// The side is not a multiple of `scale`, or 0. The error names `field`, the argument with the side.
pub fn check_size(field: &str, pixels: usize, scale: usize) -> Result<(), ArgumentError> {
    if pixels > 0 && pixels.is_multiple_of(scale) {
        return Ok(());
    }
    let expected =
        format!("a multiple of {scale} (the model's VAE makes {scale} pixels a side of one latent)");
    Err(ArgumentError::new(field, expected, pixels.to_string()))
}
