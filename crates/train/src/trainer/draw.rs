//! The random numbers of a batch.

use calotype_tensor::Tensor;

use super::stream::{Purpose, stream};
use crate::plan::TrainPlan;
use calotype_sdxl::channels_last;

/// The random numbers of a batch, drawn in torch's order (B, C, h, w).
pub(crate) struct Draw {
    /// (B, h, w, C): the noise of the latents' samples.
    pub(super) eps: Tensor,
    /// (B, h, w, C): the noise that the UNet is to predict.
    pub(super) noise: Tensor,
    pub(super) timesteps: Vec<usize>,
    /// For each picture: whether its caption is replaced by the empty prompt.
    pub(super) dropped: Vec<bool>,
    /// γ of min-SNR weighting. `None`: all timesteps weigh the same.
    pub(super) min_snr_gamma: Option<f64>,
}

impl Draw {
    /// Draws for batch `index` of a training: `count` latents of shape (h, w, C).
    pub(super) fn of_batch(
        plan: &TrainPlan,
        shape: [usize; 3],
        timesteps: usize,
        index: usize,
        count: usize,
    ) -> Self {
        let [h, w, c] = shape;
        let options = &plan.options;
        let mut generator = stream(plan.seed, Purpose::Step, index as u64);
        let eps = channels_last(&generator.randn(count * c * h * w), shape);
        let mut noise = generator.randn(count * c * h * w);
        let timesteps = generator.randint(0, timesteps as i64, count);
        if options.noise_offset > 0.0 {
            let offsets = generator.randn(count * c);
            for (noise, offset) in noise.chunks_exact_mut(h * w).zip(offsets) {
                noise.iter_mut().for_each(|x| *x += options.noise_offset as f32 * offset);
            }
        }
        let mut dropped = vec![false; count];
        if options.caption_dropout > 0.0 {
            let chances = generator.rand(count);
            dropped = chances.into_iter().map(|x| f64::from(x) < options.caption_dropout).collect();
        }
        let timesteps = timesteps.into_iter().map(|t| t as usize).collect();
        let noise = channels_last(&noise, shape);
        Self { eps, noise, timesteps, dropped, min_snr_gamma: options.min_snr_gamma }
    }
}
