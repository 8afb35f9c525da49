//! The pictures of the training set as the VAE encodes them, once, before the first step.

use calotype_tensor::Tensor;

use crate::Error;
use crate::dataset::{DatasetError, Example};
use calotype_models::config::VaeConfig;
use calotype_models::{Moments, Vae};
use calotype_sdxl::latents;

/// The latent distribution of one picture. Each training step takes a new sample.
pub struct Latents {
    moments: Moments,
    /// (h, w), from 0 to 1, with a sum above 0. `None`: 1 everywhere.
    pub mask: Option<Vec<f32>>,
}

impl Latents {
    /// Encodes a square picture of `resolution` pixels a side.
    ///
    /// # Errors
    /// The example's mask is black at every pixel that becomes the mask of a latent.
    pub fn encode(vae: &Vae, example: &Example, resolution: usize) -> Result<Self, Error> {
        let moments = vae.encode(&latents::picture(&example.rgb, [resolution; 2]));
        let mean = moments.mean();
        let mask = example.mask.as_ref().map(|mask| nearest(mask, resolution, [mean.dim(1), mean.dim(2)]));
        if mask.as_ref().is_some_and(|mask| mask.iter().all(|&m| m == 0.0)) {
            let reason = "the mask is black all over, as the latents see it".into();
            return Err(DatasetError::Open { path: example.name.clone(), reason }.into());
        }
        Ok(Self { moments, mask })
    }

    /// The shape of the latents, (h, w, C).
    pub fn shape(&self) -> [usize; 3] {
        let mean = self.moments.mean();
        [mean.dim(1), mean.dim(2), mean.dim(3)]
    }

    /// Samples latents (1, h, w, C), scaled for the UNet. `noise` (1, h, w, C) holds standard normal numbers.
    pub fn sample(&self, noise: &Tensor, config: &VaeConfig) -> Tensor {
        latents::scale(config, &self.moments.sample(noise))
    }
}

/// Scales a grey picture of side × side bytes to `size` values from 0 to 1, as torch's `nearest` does.
fn nearest(mask: &[u8], side: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    let at = |i: usize| f32::from(mask[i / width * side / height * side + i % width * side / width]) / 255.0;
    (0..height * width).map(at).collect()
}
