//! The loop's body: a batch, its loss, its gradients, a step. `tools/reference/trainer.py` says the same in PyTorch.

use std::ops::ControlFlow;
use std::sync::Arc;

use calotype_tensor::{DType, Tensor, cpu, ops};

use super::draw::Draw;
use super::gradients::Gradients;
use super::latents::Latents;
use super::noise::DdpmNoise;
use super::stream::batch;
use super::text::{NEW_TOKENS, Text};
use super::trained::{self, Trained};
use crate::Error;
use crate::adapters::{FullTensors, LoraLayers, LoraPair, TrainedWeights};
use crate::config::{Component, ModelConfigs, ModelFolder};
use crate::dataset::{self, Example};
use crate::lr_schedule::LrSchedule;
use crate::models::{UNet, Vae};
use crate::optim;
use crate::request::{Method, TrainPlan, check_size};
use crate::weights::Training;

/// How a training computes.
#[derive(Clone, Copy, Debug)]
pub struct TrainerOptions {
    /// Of activations and frozen weights.
    pub dtype: DType,
    /// Whether the UNet's blocks compute their insides again on the way back, rather than keep them.
    pub recompute: bool,
}

/// Told how many pictures of the set are encoded; breaking stops the work before the next picture.
pub type OnPicture<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Which one, from 0.
    pub step: usize,
    /// The mean over its batches.
    pub loss: f64,
    /// Of all gradients together, before they were clipped.
    pub grad_norm: f64,
    /// The learning rate that it ran at.
    pub lr: f64,
    /// That of the embeddings: 0 once they stand still.
    pub ti_lr: f64,
}

/// A training between two steps. All that is random follows from the plan's seed and the number of steps done.
pub struct Trainer {
    plan: TrainPlan,
    options: TrainerOptions,
    configs: ModelConfigs,
    noise: DdpmNoise,
    schedule: LrSchedule,
    unet: UNet,
    text: Text,
    latents: Vec<Latents>,
    /// (n, 6): original height and width, crop's top and left, height and width.
    time_ids: Vec<[f32; 6]>,
    /// What the examples are: [`dataset::fingerprint`].
    set: u32,
    /// What the model is: [`ModelFolder::fingerprint`].
    model: u32,
    trained: Vec<Trained>,
    /// A full fine-tune's tensors.
    full: Option<Arc<FullTensors>>,
    /// Optimizer steps done.
    done: usize,
}

impl Trainer {
    /// Loads what trains and what does not; the examples are encoded, and the VAE is dropped. `on_picture` is told how many
    /// pictures are encoded, from 0 on; breaking stops with [`Error::Interrupted`] before the next one.
    ///
    /// # Errors
    /// A file of the model's folder is not what it should be, an example's mask leaves nothing to learn from, or
    /// `on_picture` breaks.
    pub fn new(
        folder: &ModelFolder,
        plan: TrainPlan,
        examples: &[Example],
        options: TrainerOptions,
        on_picture: &mut OnPicture,
    ) -> Result<Self, Error> {
        let configs = folder.configs()?;
        check_size("resolution", plan.resolution, configs.vae.scale())?;
        let scheduler = folder.scheduler()?;
        let noise = DdpmNoise::new(&scheduler)?;
        let latents = encode_pictures(folder, &configs, examples, plan.resolution, on_picture)?;
        let captions: Vec<&str> = examples.iter().map(|e| e.caption.as_str()).collect();
        let text = Text::load(folder, &configs, &captions, &plan.token_string, plan.seed, options.dtype)?;
        let lora = match plan.method {
            Method::Lora { rank } => Some(Arc::new(LoraLayers::new(rank))),
            Method::TextualInversion | Method::Full => None,
        };
        let full = (plan.method == Method::Full).then(Arc::<FullTensors>::default);
        let store = (options.dtype == DType::BF16).then_some(DType::BF16);
        let training = Training { lora: lora.clone(), full: full.clone(), recompute: options.recompute };
        let weights = folder.weights(Component::UNet, None, store)?.for_training(training);
        let unet = UNet::load(&weights, &configs.unet)?;
        if let Some(lora) = &lora {
            lora.init(plan.seed);
        }
        let trained = trained::all(lora.as_deref(), full.as_deref(), &text, plan.optimizer()?);
        let side = plan.resolution as f32;
        let ids = |e: &Example| {
            let ([height, width], [top, left]) = (e.original_size, e.crop_top_left);
            [height as f32, width as f32, top as f32, left as f32, side, side]
        };
        Ok(Self {
            schedule: LrSchedule::new(plan.lr_scheduler, plan.lr_warmup_steps, plan.steps),
            time_ids: examples.iter().map(ids).collect(),
            set: dataset::fingerprint(examples),
            model: folder.fingerprint()?,
            done: 0,
            plan,
            options,
            configs,
            noise,
            unet,
            text,
            latents,
            trained,
            full,
        })
    }

    /// What is trained.
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// Optimizer steps done.
    pub fn steps_done(&self) -> usize {
        self.done
    }

    /// How it computes.
    pub fn options(&self) -> TrainerOptions {
        self.options
    }

    /// The same for the same examples only: a CRC-32.
    pub(super) fn set(&self) -> u32 {
        self.set
    }

    /// The same for the same model only: a CRC-32.
    pub(super) fn model(&self) -> u32 {
        self.model
    }

    /// How many examples there are, the shape of their latents (h, w, C), and how many timesteps.
    pub(super) fn sizes(&self) -> (usize, [usize; 3], usize) {
        (self.latents.len(), self.latents[0].shape(), self.noise.alphas_cumprod().len())
    }

    /// Every parameter, in a fixed order.
    pub(super) fn trained(&self) -> &[Trained] {
        &self.trained
    }

    /// Whether everything that trains is still a number.
    pub(super) fn is_finite(&self) -> bool {
        self.trained.iter().all(|trained| trained.parameter.values().f32s().iter().all(|x| x.is_finite()))
    }

    /// Goes on after `done` steps, with what `fill` makes of every parameter.
    pub(super) fn resume(&mut self, done: usize, fill: impl FnMut(&mut Trained)) {
        self.trained.iter_mut().for_each(fill);
        self.text.forget();
        self.done = done;
    }

    /// What has been learnt so far. A full fine-tune's tensors are not copied: they are what they are when they are written.
    pub fn trained_weights(&self) -> TrainedWeights {
        let find = |name: &str| {
            let trained = self.trained.iter().find(|trained| trained.name == name);
            trained.map(|trained| trained.parameter.values())
        };
        let mut weights = TrainedWeights {
            tokens: [(self.plan.token_string.clone(), NEW_TOKENS.concat())].into(),
            embeddings: find("text_encoders_0").zip(find("text_encoders_1")).map(|(a, b)| [a, b]),
            ..TrainedWeights::default()
        };
        let full = self.full.iter().flat_map(|full| full.tensors());
        weights.unet = full.map(|(key, tensor)| (key, tensor.into())).collect();
        for trained in &self.trained {
            let Some(path) = trained.name.strip_suffix(".down") else { continue };
            let (down, up) = (find(&trained.name), find(&format!("{path}.up")));
            weights.lora.extend(down.zip(up).map(|(down, up)| (path.to_string(), LoraPair::new(down, up))));
        }
        weights
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// The loss or a gradient is not a number. Nothing has been changed then, except where each tensor takes its step as soon
    /// as its gradient is known (Adafactor): such a training can only go on from a checkpoint.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let (step, batches) = (self.done, self.plan.options.gradient_accumulation_steps);
        let diverged = Error::Diverged { step: step + 1 };
        let rows_train = step < self.plan.pivot();
        let factor = self.schedule.factor(step);
        let [lr, ti_lr] = [self.plan.lr * factor, if rows_train { self.plan.ti_lr * factor } else { 0.0 }];
        let mut gradients = Gradients::new(&self.trained, rows_train, self.plan.steps_at_once()?);
        let mut loss = 0.0;
        for i in 0..batches {
            let batch_loss = self.batch_loss(step * batches + i, rows_train);
            loss += f64::from(batch_loss.f32s()[0]) / batches as f64;
            if !loss.is_finite() {
                return Err(diverged);
            }
            let share = Tensor::full(&[], 1.0 / batches as f32, DType::F32);
            let trained = &mut self.trained;
            batch_loss
                .backward_with(share, &mut |leaf, gradient| gradients.take(trained, leaf, gradient, lr));
        }
        let grad_norm = gradients.norm();
        if !grad_norm.is_finite() {
            return Err(diverged);
        }
        let clip = self.plan.max_grad_norm().map_or(1.0, |max| optim::clip_factor(grad_norm, max));
        for (trained, gradient) in self.trained.iter_mut().zip(gradients.into_sums()) {
            if let Some(mut gradient) = gradient {
                trained.update(&mut gradient, clip as f32, if trained.rows { ti_lr } else { lr });
            }
        }
        if rows_train {
            self.text.rescale();
        }
        self.done += 1;
        Ok(StepReport { step, loss, grad_norm, lr, ti_lr })
    }

    /// The loss of batch `index` of the whole training, on the tape.
    fn batch_loss(&mut self, index: usize, rows_train: bool) -> Tensor {
        let items = batch(self.plan.seed, self.latents.len(), self.plan.train_batch_size, index as u64);
        let draw = Draw::of_batch(
            &self.plan,
            self.latents[0].shape(),
            self.noise.alphas_cumprod().len(),
            index,
            items.len(),
        );
        let captions: Vec<_> = items.iter().zip(&draw.dropped).map(|(&i, &d)| (!d).then_some(i)).collect();
        self.loss(&items, &captions, &draw, rows_train)
    }

    /// The loss of these examples with these captions (none: the empty prompt), a scalar.
    pub(super) fn loss(
        &mut self,
        items: &[usize],
        captions: &[Option<usize>],
        draw: &Draw,
        rows_train: bool,
    ) -> Tensor {
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
        let embeds = self.text.encode(captions, rows_train);
        let ids = items.iter().flat_map(|&item| self.time_ids[item]).collect();
        let time_ids = Tensor::from_vec(ids, &[items.len(), 6]);
        let context = self.unet.prepare(&embeds.hidden, &embeds.pooled, &time_ids);
        let timesteps: Vec<f32> = draw.timesteps.iter().map(|&t| t as f32).collect();
        let prediction = self.unet.forward(&noisy.to_dtype(self.options.dtype), &timesteps, &context);
        ops::mse(&prediction, &target, Some(&self.loss_weights(items, draw)))
    }

    /// (B, h, w): what makes a mean over all latents the mean over pictures of their masked, weighted means.
    fn loss_weights(&self, items: &[usize], draw: &Draw) -> Tensor {
        let [height, width, _] = self.latents[0].shape();
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

/// The VAE's moments of every picture.
fn encode_pictures(
    folder: &ModelFolder,
    configs: &ModelConfigs,
    examples: &[Example],
    resolution: usize,
    on_picture: &mut OnPicture,
) -> Result<Vec<Latents>, Error> {
    // In f32 always: it is done once.
    let vae = Vae::load(&folder.weights(Component::Vae, None, None)?, &configs.vae)?;
    let encode = |(done, example): (usize, &Example)| match on_picture(done) {
        ControlFlow::Continue(()) => Latents::encode(&vae, example, resolution),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    };
    let latents = examples.iter().enumerate().map(encode).collect();
    cpu::trim_pool();
    latents
}
