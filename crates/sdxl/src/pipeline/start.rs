//! What the sampling of a picture starts from: noise, or a picture with noise. Random numbers are drawn in the order of diffusers'
//! pipelines.

use calotype_models::config::VaeConfig;
use calotype_models::vae_rows::AT_ONCE;
use calotype_models::{Moments, Vae};
use calotype_tensor::{Tensor, ops};

use super::generator::Noise;
use super::given::Given;
use crate::latents;
use crate::samplers::Schedule;

/// The latents of the request's picture, the same for each picture that is made of it.
pub(super) struct Source<'a> {
    config: &'a VaeConfig,
    picture: Moments,
    inpainting: Option<Inpainting>,
    /// Whether the network is made for inpainting, so that it sees the mask and the preserved part.
    seen: bool,
}

struct Inpainting {
    /// (1, h, w, 1): 1 where the latents are painted.
    mask: Tensor,
    /// The picture without the part that is painted.
    masked: Moments,
}

/// A picture between two steps.
pub(super) struct Making {
    /// The number of the picture in its request, from 0.
    pub picture: usize,
    /// The steps that have been made.
    pub done: usize,
    /// The latents (1, h, w, C), f32.
    pub x: Tensor,
    pub noise: Noise,
    /// The part that stays as it is.
    pub preserved: Option<Preserved>,
    /// Channels that the network gets with the latents: mask and masked picture (1, h, w, 1 + C).
    pub seen: Option<Tensor>,
}

/// The part of a picture's latents that is not painted.
pub(super) struct Preserved {
    mask: Tensor,
    clean: Tensor,
    /// The noise that the sampling started from.
    noise: Tensor,
}

impl<'a> Source<'a> {
    /// Encodes the request's picture. `seen`: the network is made for inpainting.
    pub fn encode(given: &Given, vae: &Vae, config: &'a VaeConfig, seen: bool) -> Source<'a> {
        let (width, height) = (given.picture.width() as usize, given.picture.height() as usize);
        let picture = latents::picture(given.picture.as_raw(), [height, width]);
        let inpainting = given.mask.as_ref().map(|mask| Inpainting {
            mask: mask.latents(config.scale()),
            masked: vae.encode_in_rows(&mask.hide(&picture), AT_ONCE),
        });
        Source { config, picture: vae.encode_in_rows(&picture, AT_ONCE), inpainting, seen }
    }

    /// A picture before the step `start`. `full`: the strength is 1.
    pub fn begin(&self, schedule: &Schedule, start: usize, full: bool, mut noise: Noise) -> Making {
        let sample = |moments: &Moments, noise: &mut Noise| {
            latents::scale(self.config, &moments.sample(&noise.draw()))
        };
        let clean = (!full || !self.seen).then(|| sample(&self.picture, &mut noise));
        let first = noise.draw();
        // Drawn even if it is not used, so that later numbers are diffusers'.
        let masked = self.inpainting.as_ref().map(|inpainting| sample(&inpainting.masked, &mut noise));
        let clean = clean.unwrap_or_else(|| latents::scale(self.config, &self.picture.mean()));
        let x = match &self.inpainting {
            Some(_) if full => ops::scale(&first, schedule.init_noise_sigma()),
            _ => schedule.add_noise(&clean, &first, start),
        };
        let mask = self.inpainting.as_ref().map(|inpainting| inpainting.mask.clone());
        let seen = mask.as_ref().zip(masked).filter(|_| self.seen);
        Making {
            picture: 0,
            done: 0,
            x,
            noise,
            seen: seen.map(|(mask, masked)| ops::concat(&[mask, &masked])),
            preserved: mask.map(|mask| Preserved { mask, clean, noise: first }),
        }
    }
}

impl Making {
    /// A picture that starts from noise alone.
    pub fn from_noise(schedule: &Schedule, mut noise: Noise) -> Making {
        let x = ops::scale(&noise.draw(), schedule.init_noise_sigma());
        Making { picture: 0, done: 0, x, noise, preserved: None, seen: None }
    }

    /// Adds the noise of the step `start` of another schedule to finished latents.
    pub fn renoise(&mut self, schedule: &Schedule, start: usize) {
        let noise = self.noise.draw();
        self.x = schedule.add_noise(&self.x, &noise, start);
        if let Some(preserved) = &mut self.preserved {
            preserved.noise = noise;
        }
    }
}

impl Preserved {
    /// Puts the preserved part, with the noise of `level`, into the latents `x`.
    pub fn put_into(&self, x: &Tensor, schedule: &Schedule, level: usize) -> Tensor {
        self.put(&schedule.add_noise(&self.clean, &self.noise, level), x)
    }

    /// Puts the preserved part into clean latents.
    pub fn put_clean(&self, x0: &Tensor) -> Tensor {
        self.put(&self.clean, x0)
    }

    fn put(&self, kept: &Tensor, x: &Tensor) -> Tensor {
        let kept = kept.to_vec();
        let (mask, channels) = (self.mask.to_vec(), x.last_dim());
        let mut mixed = x.to_vec();
        for (i, (x, kept)) in mixed.iter_mut().zip(kept).enumerate() {
            if mask[i / channels] == 0.0 {
                *x = kept;
            }
        }
        Tensor::from_vec(mixed, x.shape())
    }
}
