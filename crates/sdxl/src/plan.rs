//! A prediction, as the pipeline takes it.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use crate::error::ArgumentError;
use crate::samplers::Sampler;

/// What a prediction makes. [`PredictPlan::default`] has the published defaults, and a random seed.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictPlan {
    /// What the picture should show.
    pub prompt: String,
    /// What it should not show. Of an empty one the pipeline's options say what becomes.
    pub negative_prompt: String,
    /// Width in pixels: a multiple of what the model's VAE makes of one latent, which the pipeline checks.
    pub width: usize,
    /// Height in pixels, likewise.
    pub height: usize,
    /// How many pictures, at least 1.
    pub num_outputs: usize,
    /// The sampler.
    pub scheduler: &'static Sampler,
    /// Denoising steps, at least 1.
    pub steps: usize,
    /// Classifier-free guidance, at least 1; at 1 there is none.
    pub guidance_scale: f64,
    /// What LoRA is multiplied by, besides its own scale.
    pub lora_scale: f64,
    /// Files of trained weights, added up in this order.
    pub replicate_weights: Vec<PathBuf>,
    /// The first picture's seed. Picture i has the seed `seed + i` (wrapping).
    pub seed: u64,
}

impl Default for PredictPlan {
    fn default() -> PredictPlan {
        PredictPlan {
            prompt: "An astronaut riding a rainbow unicorn".into(),
            negative_prompt: String::new(),
            width: 1024,
            height: 1024,
            num_outputs: 1,
            scheduler: Sampler::k_euler(),
            steps: 50,
            guidance_scale: 7.5,
            lora_scale: 0.6,
            replicate_weights: Vec::new(),
            seed: random_seed(),
        }
    }
}

impl PredictPlan {
    /// The seed of picture `i`.
    pub fn image_seed(&self, i: usize) -> u64 {
        self.seed.wrapping_add(i as u64)
    }
}

/// A random seed from 0 to 2³² − 1: torch's CPU generator looks at 32 bits only.
pub fn random_seed() -> u64 {
    // The keys of std's hash maps come from the system's generator.
    RandomState::new().hash_one(()) >> 32
}

/// Whether a side of a picture is one that the model can make: a whole number of latents, of `scale` pixels each.
///
/// # Errors
/// It is not: names `field`, the side in pixels.
pub fn check_size(field: &str, pixels: usize, scale: usize) -> Result<(), ArgumentError> {
    if pixels > 0 && pixels.is_multiple_of(scale) {
        return Ok(());
    }
    let expected =
        format!("a multiple of {scale} (the model's VAE makes {scale} pixels a side of one latent)");
    Err(ArgumentError::new(field, expected, pixels.to_string()))
}
