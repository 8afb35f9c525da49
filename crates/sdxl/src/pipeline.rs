//! Text to image: encode the prompts, denoise the latents, decode the latents. As diffusers'
//! `StableDiffusionXLPipeline`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use calotype_tensor::rng::{TorchCpu, TorchCuda};
use calotype_tensor::{DType, Tensor, cpu, ops};

use crate::Error;
use crate::adapters::{Adapters, Fingerprint, Modules, Tagged};
use crate::channels_last::channels_last;
use crate::plan::{PredictPlan, check_size};
use crate::prompt::{self, PromptEmbeds, PromptEncoder};
use crate::samplers::{self, Hooks, Schedule, SchedulerConfig};
use calotype_models::weights::store_for;
use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_models::{Context, UNet, Vae};

/// The side of a tile in latents, when a picture is decoded in tiles. Pictures up to 1024 × 1024 pixels are
/// decoded at once.
const VAE_TILE: usize = 128;

/// The generator of torch that draws the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rng {
    /// The CPU generator (MT19937).
    Cpu,
    /// The CUDA generator (Philox 4×32-10).
    Cuda,
}

/// The embeddings of an empty negative prompt, if there is guidance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyNegative {
    /// The embeddings of the empty text, as in the published system.
    #[default]
    Encode,
    /// Zeros. diffusers uses them if no negative prompt is given and the model's `force_zeros_for_empty_prompt` is true.
    Zeros,
}

/// How a pipeline computes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The dtype of the networks' activations, and with bf16 also of their weights. With f32, weights keep the
    /// dtype of their files.
    pub dtype: DType,
    /// The generator that seeds refer to.
    pub rng: Rng,
    /// The embeddings of an empty negative prompt.
    pub empty_negative: EmptyNegative,
}

/// Progress of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps done, of all pictures together; 0 while the model is being loaded.
    pub step: usize,
    /// The number of steps of all pictures.
    pub steps: usize,
}

/// Called with the progress. A break stops the prediction with [`Error::Interrupted`].
pub type OnStep<'a> = dyn FnMut(Step) -> ControlFlow<()> + 'a;

/// A finished picture.
pub struct Image {
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
    /// Rows of pixels from the top, 3 bytes per pixel.
    pub rgb: Vec<u8>,
    /// The seed that gives this picture when it is made alone.
    pub seed: u64,
}

/// An SDXL checkpoint folder, ready for predictions. VAE and denoiser are loaded at first use and kept. The denoiser includes
/// the trained weights of the last request; a request with other trained weights loads it again.
///
/// Several threads may predict from one pipeline at the same time, including threads of a rayon pool.
pub struct Pipeline {
    folder: ModelFolder,
    configs: ModelConfigs,
    scheduler: SchedulerConfig,
    prompts: PromptEncoder,
    options: Options,
    unet: Mutex<Option<Merged>>,
    vae: OnceLock<Vae>,
}

/// A denoiser, and the trained weights that are merged into it (`None`: the folder's own weights).
struct Merged {
    unet: Arc<UNet>,
    weights: Option<Fingerprint>,
}

impl Pipeline {
    /// Opens a checkpoint folder in diffusers' layout. Reads configs and tokenizers, but no weights yet.
    ///
    /// # Errors
    /// The folder or one of its files is missing or invalid.
    pub fn open(path: &Path, options: Options) -> Result<Pipeline, Error> {
        let folder = ModelFolder::open(path)?;
        let configs = folder.configs()?;
        let scheduler = SchedulerConfig::open(&folder)?;
        let prompts = PromptEncoder::open(&folder, &configs, options.dtype)?;
        let (unet, vae) = (Mutex::new(None), OnceLock::new());
        Ok(Pipeline { folder, configs, scheduler, prompts, options, unet, vae })
    }

    /// See [`ModelConfigs::native_size`].
    pub fn native_size(&self) -> Option<usize> {
        self.configs.native_size()
    }

    /// Whether diffusers would use zeros for the plan's negative prompt, because the prompt is empty.
    pub fn diffusers_gives_zeros(&self, plan: &PredictPlan) -> bool {
        self.folder.force_zeros_for_empty_prompt && guided(plan) && plan.negative_prompt.is_empty()
    }

    /// Makes the plan's pictures. Each picture depends only on the plan and on its own seed.
    ///
    /// # Errors
    /// The plan does not fit the model's sizes or its schedule, a file of the model or of trained weights is missing or
    /// invalid, a picture is not finite, or `on_step` breaks.
    pub fn predict(&self, plan: &PredictPlan, on_step: &mut OnStep) -> Result<Vec<Image>, Error> {
        let scale = self.configs.vae.scale();
        check_size("width", plan.width, scale)?;
        check_size("height", plan.height, scale)?;
        prompt::warn_about_syntax([&plan.prompt, &plan.negative_prompt]);
        let schedule = Schedule::new(plan.scheduler, &self.scheduler, plan.steps)?;
        let mut progress = Progress { done: 0, steps: plan.num_outputs * schedule.steps(), on_step };
        progress.report()?;
        // Before the files are read: a file that changes while it is read is read again for the next request.
        let prompts = [plan.negative_prompt.as_str(), plan.prompt.as_str()];
        let tagged = Tagged::read(&prompts, &plan.replicate_weights, plan.lora_scale);
        let fingerprint = Fingerprint::of(&plan.replicate_weights, &tagged.scales);
        let adapters = self.adapters(plan, &tagged)?;
        let embeds = self.encode_prompts(plan, &tagged, &adapters)?;
        tracing::info!("prompts encoded");
        progress.report()?;
        // Loaded before sampling, although used afterwards, so that a broken file is found at once.
        let vae = load_once(&self.vae, || self.load_vae())?;
        let unet = &*self.unet(&adapters, fingerprint)?;
        drop(adapters);
        progress.report()?;
        let context = self.prepare(unet, &embeds, plan);
        tracing::info!("denoising, {} steps", progress.steps);
        let mut latents = Vec::new();
        for i in 0..plan.num_outputs {
            latents.push(self.sample(unet, &context, &schedule, plan, plan.image_seed(i), &mut progress)?);
        }
        drop(context);
        cpu::trim_pool();
        let mut images = Vec::new();
        for (i, latents) in latents.iter().enumerate() {
            progress.report()?;
            images.push(self.decode(vae, latents, plan.image_seed(i))?);
        }
        Ok(images)
    }

    /// The embeddings of the prompt. With guidance, those of the negative prompt come first.
    fn encode_prompts(
        &self,
        plan: &PredictPlan,
        tagged: &Tagged,
        adapters: &Adapters,
    ) -> Result<PromptEmbeds, Error> {
        let zeros = self.options.empty_negative == EmptyNegative::Zeros && plan.negative_prompt.is_empty();
        let prompts: Vec<&str> = tagged.prompts.iter().map(String::as_str).collect();
        let prompts = &prompts[if guided(plan) && !zeros { 0 } else { 1 }..];
        let embeds = self.prompts.encode(&self.folder, adapters, prompts)?;
        cpu::trim_pool();
        Ok(if guided(plan) && zeros { embeds.after_zeros() } else { embeds })
    }

    /// The conditioning of each picture in the batch: texts and sizes.
    fn prepare(&self, unet: &UNet, embeds: &PromptEmbeds, plan: &PredictPlan) -> Context {
        let batch = embeds.pooled.dim(0);
        let (height, width) = (plan.height as f32, plan.width as f32);
        let ids = (0..batch).flat_map(|i| {
            // diffusers' defaults of the refiner's aesthetic score, for the prompt and for the negative prompt.
            let score = if i + 1 == batch { 6.0 } else { 2.5 };
            let target =
                if self.folder.requires_aesthetics_score { vec![score] } else { vec![height, width] };
            [vec![height, width, 0.0, 0.0], target].concat()
        });
        let time_ids = Tensor::from_vec(ids.collect(), &[batch, self.folder.time_ids()]);
        unet.prepare(&embeds.hidden.to_dtype(self.options.dtype), &embeds.pooled, &time_ids)
    }

    /// Samples latents (1, h, w, C), f32, from noise.
    fn sample(
        &self,
        unet: &UNet,
        context: &Context,
        schedule: &Schedule,
        plan: &PredictPlan,
        seed: u64,
        progress: &mut Progress,
    ) -> Result<Tensor, Error> {
        let scale = self.configs.vae.scale();
        let shape = [plan.height / scale, plan.width / scale, self.configs.unet.in_channels];
        let mut noise = Noise::new(self.options.rng, seed, shape);
        let x = ops::scale(&noise.draw(), schedule.init_noise_sigma());
        let guidance = guided(plan).then_some(plan.guidance_scale as f32);
        let mut stopped = Ok(());
        let result = samplers::sample(
            schedule,
            x,
            &mut Hooks {
                denoise: &mut |x, t| denoise(unet, context, self.options.dtype, guidance, x, t),
                noise: &mut || noise.draw(),
                on_step: &mut |_| {
                    progress.done += 1;
                    stopped = progress.report();
                    if stopped.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                },
            },
        );
        match result {
            ControlFlow::Continue(latents) => Ok(latents),
            ControlFlow::Break(()) => Err(stopped.err().unwrap_or(Error::Interrupted)),
        }
    }

    fn decode(&self, vae: &Vae, latents: &Tensor, seed: u64) -> Result<Image, Error> {
        let latents = self.unscale(latents).to_dtype(self.options.dtype);
        let picture = if Vae::needs_tiles(&latents, VAE_TILE) {
            vae.decode_tiled(&latents, VAE_TILE)
        } else {
            vae.decode(&latents) // (1, H, W, 3)
        };
        let pixels = picture.to_vec();
        if pixels.iter().any(|x| !x.is_finite()) {
            return Err(Error::NotFinite);
        }
        let byte = |x: &f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let rgb = pixels.iter().map(byte).collect();
        Ok(Image { width: picture.dim(2), height: picture.dim(1), rgb, seed })
    }

    /// The latents as the VAE's decoder takes them.
    fn unscale(&self, latents: &Tensor) -> Tensor {
        let vae = &self.configs.vae;
        let Some((mean, std)) = &vae.latents_mean_std else {
            return ops::scale(latents, 1.0 / vae.scaling_factor);
        };
        let channels = latents.last_dim();
        let values = latents.to_vec().into_iter().enumerate();
        let unscaled = values.map(|(i, x)| x * std[i % channels] / vae.scaling_factor + mean[i % channels]);
        Tensor::from_vec(unscaled.collect(), latents.shape())
    }

    /// Reads the plan's trained weights, and checks them against the model.
    fn adapters(&self, plan: &PredictPlan, tagged: &Tagged) -> Result<Adapters, Error> {
        if plan.replicate_weights.is_empty() {
            return Ok(Adapters::default());
        }
        let modules = Modules::of(&self.folder, &self.configs)?;
        Ok(Adapters::load(&plan.replicate_weights, &tagged.scales, &modules, &self.configs)?)
    }

    /// The denoiser with the trained weights merged in. The kept denoiser is used if it has exactly these weights.
    fn unet(&self, adapters: &Adapters, fingerprint: Fingerprint) -> Result<Arc<UNet>, Error> {
        let patch = adapters.patch(Component::UNet);
        let wanted = (!patch.is_empty()).then_some(fingerprint);
        if let Some(unet) = self.kept_unet(&wanted) {
            return Ok(unet);
        }
        // Loaded without the lock. Loading has parallel loops, in which this thread may take up another request. That request
        // would wait for a lock that its own thread holds.
        let weights =
            self.folder.weights(Component::UNet, None, store_for(self.options.dtype))?.with_hook(patch);
        let unet = Arc::new(UNet::load(&weights, &self.configs.unet)?);
        // Another request may have loaded the same weights meanwhile, and may have packed them already.
        if let Some(unet) = self.kept_unet(&wanted) {
            return Ok(unet);
        }
        *self.unet_slot() = Some(Merged { unet: unet.clone(), weights: wanted });
        Ok(unet)
    }

    /// The kept denoiser, if it has exactly these trained weights. A denoiser with others is dropped first, so that two are not
    /// in memory while the next is loaded, unless another prediction still uses the old one.
    fn kept_unet(&self, wanted: &Option<Fingerprint>) -> Option<Arc<UNet>> {
        let mut kept = self.unet_slot();
        let merged = kept.as_ref()?;
        let same = match (&merged.weights, wanted) {
            (Some(loaded), Some(wanted)) => loaded.is_same_as(wanted),
            (loaded, wanted) => loaded.is_none() && wanted.is_none(),
        };
        if same {
            return Some(merged.unet.clone());
        }
        *kept = None;
        None
    }

    /// Locks the kept denoiser. Hold the lock for a moment only, and across no parallel loop.
    fn unet_slot(&self) -> MutexGuard<'_, Option<Merged>> {
        self.unet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_vae(&self) -> Result<Vae, Error> {
        let weights = self.folder.weights(Component::Vae, None, store_for(self.options.dtype))?;
        Ok(Vae::load(&weights, &self.configs.vae)?)
    }
}

/// Whether the plan has classifier-free guidance, which also needs a prediction for the negative prompt.
fn guided(plan: &PredictPlan) -> bool {
    plan.guidance_scale > 1.0
}

fn load_once<T>(cell: &OnceLock<T>, load: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    if let Some(loaded) = cell.get() {
        return Ok(loaded);
    }
    let loaded = load()?;
    Ok(cell.get_or_init(|| loaded))
}

/// The network's output for latents x (1, h, w, C). Guidance (Ho & Salimans, 2022) moves the output away from
/// that for the negative prompt.
fn denoise(
    unet: &UNet,
    context: &Context,
    dtype: DType,
    guidance: Option<f32>,
    x: &Tensor,
    t: f32,
) -> Tensor {
    let x = x.to_dtype(dtype);
    let Some(scale) = guidance else { return unet.forward(&x, &[t], context) };
    let both = unet.forward(&ops::cat_batch(&[&x, &x]), &[t], context).to_dtype(DType::F32); // (2, h, w, C)
    let (negative, positive) = (ops::slice_batch(&both, 0, 1), ops::slice_batch(&both, 1, 1));
    ops::lincomb(&[(1.0 - scale, &negative), (scale, &positive)])
}

/// The random numbers of one picture.
struct Noise {
    generator: Generator,
    /// Height, width and channels of the latents.
    shape: [usize; 3],
}

enum Generator {
    Cpu(Box<TorchCpu>),
    Cuda(TorchCuda),
}

impl Noise {
    fn new(rng: Rng, seed: u64, shape: [usize; 3]) -> Noise {
        let generator = match rng {
            Rng::Cpu => Generator::Cpu(Box::new(TorchCpu::new(seed))),
            Rng::Cuda => Generator::Cuda(TorchCuda::new(seed)),
        };
        Noise { generator, shape }
    }

    /// Standard normal numbers (1, h, w, C), drawn as torch draws (1, C, h, w).
    fn draw(&mut self) -> Tensor {
        let count = self.shape.iter().product();
        let numbers = match &mut self.generator {
            Generator::Cpu(generator) => generator.randn(count),
            Generator::Cuda(generator) => generator.randn(count),
        };
        channels_last(&numbers, self.shape)
    }
}

/// The steps done so far, and the callback that is told.
struct Progress<'a, 'b> {
    done: usize,
    steps: usize,
    on_step: &'a mut OnStep<'b>,
}

impl Progress<'_, '_> {
    fn report(&mut self) -> Result<(), Error> {
        match (self.on_step)(Step { step: self.done, steps: self.steps }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}
