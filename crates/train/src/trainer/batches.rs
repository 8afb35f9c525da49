//! The batches of a training: noisy latents, their captions, and the targets of the UNet's predictions.

use std::ops::ControlFlow;

use calotype_tensor::{DType, Tensor, cpu, ops};

use super::OnPicture;
use super::draw::Draw;
use super::latents::Latents;
use super::noise::DdpmNoise;
use super::stream::batch;
use super::text::Text;
use super::unet_trainer::Batch;
use crate::Error;
use crate::dataset::Example;
use crate::plan::TrainPlan;
use calotype_models::Vae;
use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_sdxl::samplers::SchedulerConfig;

/// A training's examples, encoded for the UNet.
pub(super) struct Batches {
    configs: ModelConfigs,
    noise: DdpmNoise,
    latents: Vec<Latents>,
    /// For each example: original height and width, crop top and left, target height and width, in pixels.
    time_ids: Vec<[f32; 6]>,
    pub(super) text: Text,
    dtype: DType,
}

impl Batches {
    /// Encodes the examples' pictures with the VAE, drops the VAE, and loads the text encoders.
    ///
    /// # Errors
    /// A file of the model's folder is missing or invalid, an example's mask is black in all latents, or
    /// `on_picture` breaks.
    pub(super) fn load(
        folder: &ModelFolder,
        configs: ModelConfigs,
        plan: &TrainPlan,
        examples: &[Example],
        dtype: DType,
        on_picture: &mut OnPicture,
    ) -> Result<Self, Error> {
        let noise = DdpmNoise::new(&SchedulerConfig::open(folder)?)?;
        let latents = encode_pictures(folder, &configs, examples, plan.resolution, on_picture)?;
        let captions: Vec<&str> = examples.iter().map(|e| e.caption.as_str()).collect();
        let text = Text::load(folder, &configs, &captions, &plan.token_string, plan.seed, dtype)?;
        let side = plan.resolution as f32;
        let ids = |e: &Example| {
            let ([height, width], [top, left]) = (e.original_size, e.crop_top_left);
            [height as f32, width as f32, top as f32, left as f32, side, side]
        };
        let time_ids = examples.iter().map(ids).collect();
        Ok(Self { configs, noise, latents, time_ids, text, dtype })
    }

    /// The number of examples.
    pub(super) fn examples(&self) -> usize {
        self.latents.len()
    }

    /// The shape of an example's latents, (h, w, C).
    pub(super) fn latents_shape(&self) -> [usize; 3] {
        self.latents[0].shape()
    }

    /// The number of training timesteps of the model's noise schedule.
    pub(super) fn timesteps(&self) -> usize {
        self.noise.alphas_cumprod().len()
    }

    /// Makes batch `index`, counted over the whole training. With `embeddings_train`, the new tokens' embeddings
    /// are on the tape.
    pub(super) fn of_training(&mut self, plan: &TrainPlan, index: usize, embeddings_train: bool) -> Batch {
        let items = batch(plan.seed, self.latents.len(), plan.train_batch_size, index as u64);
        let draw = Draw::of_batch(plan, self.latents_shape(), self.timesteps(), index, items.len());
        let captions: Vec<_> = items.iter().zip(&draw.dropped).map(|(&i, &d)| (!d).then_some(i)).collect();
        self.of_examples(&items, &captions, &draw, embeddings_train)
    }

    /// Makes a batch of the examples `items` with the captions of `captions` (`None`: the empty prompt).
    pub(super) fn of_examples(
        &mut self,
        items: &[usize],
        captions: &[Option<usize>],
        draw: &Draw,
        embeddings_train: bool,
    ) -> Batch {
        let samples: Vec<Tensor> = items
            .iter()
            .enumerate()
            .map(|(i, &item)| {
                self.latents[item].sample(&ops::slice_batch(&draw.eps, i, 1), &self.configs.vae)
            })
            .collect();
        let latents = ops::cat_batch(&samples.iter().collect::<Vec<_>>()); // (B, h, w, C)
        let noisy = self.noise.add_noise(&latents, &draw.noise, &draw.timesteps);
        let target = self.noise.target(&latents, &draw.noise, &draw.timesteps);
        let embeds = self.text.encode(captions, embeddings_train);
        let ids = items.iter().flat_map(|&item| self.time_ids[item]).collect();
        Batch {
            sample: noisy.to_dtype(self.dtype),
            timesteps: draw.timesteps.iter().map(|&t| t as f32).collect(),
            hidden: embeds.hidden,
            pooled: embeds.pooled,
            time_ids: Tensor::from_vec(ids, &[items.len(), 6]),
            target,
            weights: Some(self.loss_weights(items, draw)),
        }
    }

    /// The loss weights (B, h, w). With them, the mean over all latents is the mean over pictures of each picture's masked,
    /// weighted mean.
    fn loss_weights(&self, items: &[usize], draw: &Draw) -> Tensor {
        let [height, width, _] = self.latents_shape();
        let mut weights = Vec::with_capacity(items.len() * height * width);
        for (&item, &t) in items.iter().zip(&draw.timesteps) {
            let weight = draw.min_snr_gamma.map_or(1.0, |gamma| self.noise.min_snr_weight(t, gamma)) as f32;
            match &self.latents[item].mask {
                None => weights.resize(weights.len() + height * width, weight),
                Some(mask) => {
                    let area = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / (height * width) as f64;
                    weights.extend(mask.iter().map(|m| m * weight / area as f32));
                }
            }
        }
        Tensor::from_vec(weights, &[items.len(), height, width])
    }
}

/// The VAE's moments of every picture, with its mask.
fn encode_pictures(
    folder: &ModelFolder,
    configs: &ModelConfigs,
    examples: &[Example],
    resolution: usize,
    on_picture: &mut OnPicture,
) -> Result<Vec<Latents>, Error> {
    // Always in f32: this runs once.
    let vae = Vae::load(&folder.weights(Component::Vae, None, None)?, &configs.vae)?;
    let encode = |(done, example): (usize, &Example)| match on_picture(done) {
        ControlFlow::Continue(()) => Latents::encode(&vae, example, resolution),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    };
    let latents = examples.iter().enumerate().map(encode).collect();
    cpu::trim_pool();
    latents
}
