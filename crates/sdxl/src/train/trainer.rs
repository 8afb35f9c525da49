//! The loop's body: a batch, its loss, its gradients, a step. `tools/reference/trainer.py` says the same in PyTorch.

use std::collections::HashMap;
use std::sync::Arc;

use calotype_tensor::{DType, LeafId, Tensor, cpu, ops};

use super::latents::Latents;
use super::noise::DdpmNoise;
use super::stream::{Purpose, batch, stream};
use super::text::{NEW_TOKENS, Text};
use crate::Error;
use crate::adapters::{LoraLayers, LoraPair, TrainedWeights};
use crate::config::{Component, ModelConfigs, ModelFolder};
use crate::dataset::Example;
use crate::layout::channels_last;
use crate::lr_schedule::LrSchedule;
use crate::models::{UNet, Vae};
use crate::nn::Parameter;
use crate::optim::{self, AdamW, Optimizer};
use crate::request::{Method, TrainPlan};
use crate::samplers::SchedulerConfig;
use crate::weights::Training;

/// Weight decay of the new tokens' embeddings.
const ROWS_DECAY: f64 = 1e-3;

/// How a training computes.
#[derive(Clone, Copy, Debug)]
pub struct TrainerOptions {
    /// Of activations and frozen weights.
    pub dtype: DType,
    /// Whether the UNet's blocks compute their insides again on the way back, rather than keep them.
    pub recompute: bool,
}

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
    /// What the examples are: [`set_fingerprint`].
    set: u32,
    trained: Vec<Trained>,
    /// Optimizer steps done.
    done: usize,
}

/// A parameter and its optimizer.
pub(super) struct Trained {
    /// As the result's files name it.
    pub(super) name: String,
    pub(super) parameter: Parameter,
    pub(super) state: optim::State,
    /// Whether it is the new tokens' embeddings.
    pub(super) rows: bool,
    optimizer: &'static dyn Optimizer,
}

impl Trainer {
    /// Loads what trains and what does not; the examples are encoded, and the VAE is dropped.
    ///
    /// # Errors
    /// A file of the model's folder is not what it should be, or an example's mask leaves nothing to learn from.
    pub fn new(
        folder: &ModelFolder,
        plan: TrainPlan,
        examples: &[Example],
        options: TrainerOptions,
    ) -> Result<Self, Error> {
        let configs = folder.configs()?;
        let scheduler = SchedulerConfig::load(&folder.scheduler_config_path())?;
        let noise = DdpmNoise::new(&scheduler)?;
        let latents = encode_pictures(folder, &configs, examples, plan.resolution)?;
        let captions: Vec<&str> = examples.iter().map(|e| e.caption.as_str()).collect();
        let text = Text::load(folder, &configs, &captions, &plan.token_string, plan.seed, options.dtype)?;
        let lora = match plan.method {
            Method::Lora { rank } => Some(Arc::new(LoraLayers::new(rank))),
            Method::TextualInversion | Method::Full => None,
        };
        let store = (options.dtype == DType::BF16).then_some(DType::BF16);
        let training = Training { lora: lora.clone(), recompute: options.recompute };
        let weights = folder.weights(Component::UNet, None, store)?.for_training(training);
        let unet = UNet::load(&weights, &configs.unet)?;
        if let Some(lora) = &lora {
            lora.init(plan.seed);
        }
        let trained = trained(lora.as_deref(), &text, plan.optimizer()?);
        let side = plan.resolution as f32;
        let ids = |e: &Example| {
            let ([height, width], [top, left]) = (e.original_size, e.crop_top_left);
            [height as f32, width as f32, top as f32, left as f32, side, side]
        };
        Ok(Self {
            schedule: LrSchedule::new(plan.lr_scheduler, plan.lr_warmup_steps, plan.steps),
            time_ids: examples.iter().map(ids).collect(),
            set: set_fingerprint(examples),
            done: 0,
            plan,
            options,
            configs,
            noise,
            unet,
            text,
            latents,
            trained,
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

    /// How many examples there are, the shape of their latents (h, w, C), and how many timesteps.
    pub(super) fn sizes(&self) -> (usize, [usize; 3], usize) {
        (self.latents.len(), self.latents[0].shape(), self.noise.alphas_cumprod().len())
    }

    /// Every parameter, in a fixed order.
    pub(super) fn trained(&self) -> &[Trained] {
        &self.trained
    }

    /// Goes on after `done` steps, with what `fill` makes of every parameter.
    pub(super) fn resume(&mut self, done: usize, fill: impl FnMut(&mut Trained)) {
        self.trained.iter_mut().for_each(fill);
        self.text.forget();
        self.done = done;
    }

    /// What has been learnt so far.
    pub fn trained_weights(&self) -> TrainedWeights {
        let find = |name: &str| {
            let trained = self.trained.iter().find(|trained| trained.name == name);
            trained.map(|trained| trained.parameter.get().detach())
        };
        let mut weights = TrainedWeights {
            tokens: [(self.plan.token_string.clone(), NEW_TOKENS.concat())].into(),
            embeddings: find("text_encoders_0").zip(find("text_encoders_1")).map(|(a, b)| [a, b]),
            ..TrainedWeights::default()
        };
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
    /// The loss is not a number; nothing has been changed then.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let (step, batches) = (self.done, self.plan.options.gradient_accumulation_steps);
        let rows_train = step < self.plan.pivot();
        let mut gradients = Gradients::new(&self.trained, rows_train);
        let mut loss = 0.0;
        for i in 0..batches {
            let batch_loss = self.batch_loss(step * batches + i, rows_train);
            loss += f64::from(batch_loss.f32s()[0]) / batches as f64;
            let share = Tensor::full(&[], 1.0 / batches as f32, DType::F32);
            batch_loss.backward_with(share, &mut |leaf, gradient| gradients.add(leaf, &gradient));
        }
        let grad_norm = gradients.norm();
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::Diverged { step: step + 1 });
        }
        let clip = self.plan.options.max_grad_norm.map_or(1.0, |max| optim::clip_factor(grad_norm, max));
        let factor = self.schedule.factor(step);
        let [lr, ti_lr] = [self.plan.lr * factor, if rows_train { self.plan.ti_lr * factor } else { 0.0 }];
        for (trained, gradient) in self.trained.iter_mut().zip(gradients.sums) {
            if let Some(gradient) = gradient {
                trained.update(gradient, clip as f32, if trained.rows { ti_lr } else { lr });
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

/// A CRC-32 of all that is learnt from.
fn set_fingerprint(examples: &[Example]) -> u32 {
    let mut crc = flate2::Crc::new();
    for e in examples {
        let sizes = [e.original_size, e.crop_top_left].map(|pair| pair.map(|n| n as u64));
        // Of known sizes: a picture's pixels, 16 bytes twice; then the caption, after its length.
        crc.update(&e.rgb);
        crc.update(bytemuck::cast_slice(sizes.as_flattened()));
        crc.update(&(e.caption.len() as u64).to_le_bytes());
        crc.update(e.caption.as_bytes());
        crc.update(&[u8::from(e.mask.is_some())]);
        crc.update(e.mask.as_deref().unwrap_or_default());
    }
    crc.sum()
}

/// The VAE's moments of every picture.
fn encode_pictures(
    folder: &ModelFolder,
    configs: &ModelConfigs,
    examples: &[Example],
    resolution: usize,
) -> Result<Vec<Latents>, Error> {
    // In f32 always: it is done once.
    let vae = Vae::load(&folder.weights(Component::Vae, None, None)?, &configs.vae)?;
    let latents = examples.iter().map(|e| Latents::encode(&vae, e, resolution)).collect();
    cpu::trim_pool();
    latents
}

/// Every parameter, in a fixed order.
fn trained(lora: Option<&LoraLayers>, text: &Text, optimizer: &'static dyn Optimizer) -> Vec<Trained> {
    let new = |name: String, parameter: Parameter, optimizer: &'static dyn Optimizer, rows: bool| Trained {
        state: optimizer.state(parameter.get().shape()),
        name,
        parameter,
        rows,
        optimizer,
    };
    let mut all = Vec::new();
    for (path, lora) in lora.map(LoraLayers::layers).unwrap_or_default() {
        all.push(new(format!("{path}.down"), lora.down, optimizer, false));
        all.push(new(format!("{path}.up"), lora.up, optimizer, false));
    }
    for (i, rows) in text.rows().enumerate() {
        all.push(new(format!("text_encoders_{i}"), rows.clone(), &AdamW, true));
    }
    all
}

impl Trained {
    /// Its shape in files.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.parameter.get().shape().to_vec()
    }

    /// Its present value, f32.
    pub(super) fn value(&self) -> Tensor {
        self.parameter.get().detach()
    }

    /// Gives it another value, as long as its shape says.
    pub(super) fn set_value(&mut self, values: Vec<f32>) {
        self.parameter.set(Tensor::from_vec(values, &self.shape()));
    }

    fn update(&mut self, mut gradient: Vec<f32>, clip: f32, lr: f64) {
        let value = self.parameter.get();
        if clip != 1.0 {
            gradient.iter_mut().for_each(|g| *g *= clip);
        }
        self.optimizer.step(&mut self.state, value.shape(), &mut gradient, lr);
        let decay = if self.rows { ROWS_DECAY } else { self.optimizer.weight_decay() };
        let keep = (1.0 - lr * decay) as f32;
        self.parameter.step(keep, &gradient);
    }
}

/// The sums of a step's gradients.
struct Gradients {
    /// Where each leaf's gradient goes.
    of_leaf: HashMap<LeafId, usize>,
    /// None of what does not train now.
    sums: Vec<Option<Vec<f32>>>,
}

impl Gradients {
    /// Zeros: a parameter that a batch does not touch (embeddings without their token) has a gradient all the same.
    fn new(trained: &[Trained], rows_train: bool) -> Self {
        let zeros = |t: &Trained| (!t.rows || rows_train).then(|| vec![0.0; t.parameter.get().numel()]);
        let leaf = |(i, t): (usize, &Trained)| t.parameter.get().leaf_id().map(|leaf| (leaf, i));
        Self {
            of_leaf: trained.iter().enumerate().filter_map(leaf).collect(),
            sums: trained.iter().map(zeros).collect(),
        }
    }

    fn add(&mut self, leaf: LeafId, gradient: &Tensor) {
        let sum = self.of_leaf.get(&leaf).and_then(|&i| self.sums[i].as_mut());
        if let Some(sum) = sum {
            sum.iter_mut().zip(gradient.f32s()).for_each(|(sum, g)| *sum += g);
        }
    }

    fn norm(&self) -> f64 {
        self.sums.iter().flatten().map(|sum| optim::squared_norm(sum)).sum::<f64>().sqrt()
    }
}

/// A batch's random numbers, drawn as torch draws (B, C, h, w).
pub(super) struct Draw {
    /// (B, h, w, C), for the latents' samples.
    pub(super) eps: Tensor,
    /// (B, h, w, C).
    pub(super) noise: Tensor,
    pub(super) timesteps: Vec<usize>,
    /// Whether a caption is left out.
    pub(super) dropped: Vec<bool>,
    /// By which timesteps are weighed; none: they are not.
    pub(super) min_snr_gamma: Option<f64>,
}

impl Draw {
    fn of_batch(plan: &TrainPlan, shape: [usize; 3], timesteps: usize, index: usize, count: usize) -> Self {
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
