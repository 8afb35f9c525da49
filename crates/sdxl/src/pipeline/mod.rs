//! Text to image: encode the prompts, denoise the latents, decode the latents. As diffusers'
//! `StableDiffusionXLPipeline`.

mod denoiser;
mod generator;
mod latents;
mod progress;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use calotype_models::weights::store_for;
use calotype_models::{Component, Context, ModelConfigs, ModelFolder, UNet, Vae};
use calotype_tensor::cpu::Workers;
use calotype_tensor::{DType, Tensor, cpu, ops};

use crate::Error;
use crate::adapters::{Adapters, Fingerprint, Modules, Tagged};
use crate::few_steps;
use crate::plan::{PredictPlan, check_size};
use crate::prompt::{self, PromptEmbeds, PromptEncoder};
use crate::samplers::{self, Hooks, Schedule, SchedulerConfig};
use crate::watermark;
use denoiser::{Denoiser, KeptUNet};
use generator::Noise;
pub use generator::Rng;
pub use latents::Image;
use progress::Progress;
pub use progress::{OnStep, Step};

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

/// An SDXL checkpoint folder, ready for predictions. VAE and denoiser are loaded at first use and kept. The denoiser includes
/// the trained weights of the last request; a request with other trained weights loads it again.
///
/// Several threads may predict from one pipeline at the same time, including threads of a rayon pool. Predictions run on the
/// threads that call, unless the pipeline has [workers of its own](Self::with_workers).
pub struct Pipeline {
    folder: ModelFolder,
    configs: ModelConfigs,
    scheduler: SchedulerConfig,
    prompts: PromptEncoder,
    options: Options,
    workers: Option<Workers>,
    unet: KeptUNet,
    vae: OnceLock<Vae>,
}

impl Pipeline {
    /// Opens a checkpoint: a folder in diffusers' layout or a single file. Reads configs and tokenizers, but no weights yet.
    ///
    /// # Errors
    /// The folder or one of its files is missing or invalid.
    pub fn open(path: &Path, options: Options) -> Result<Pipeline, Error> {
        Self::of(ModelFolder::open(path)?, options)
    }

    /// As [`Self::open`], of a model that is open.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(folder: ModelFolder, options: Options) -> Result<Pipeline, Error> {
        let configs = folder.configs()?;
        let scheduler = SchedulerConfig::open(&folder)?;
        let prompts = PromptEncoder::open(&folder, &configs, options.dtype)?;
        let (unet, vae) = (KeptUNet::default(), OnceLock::new());
        Ok(Pipeline { folder, configs, scheduler, prompts, options, workers: None, unet, vae })
    }

    /// The same pipeline, whose predictions run on these threads and in their memory. Pipelines with workers of their own do not
    /// wait for each other, and free nothing of each other's memory.
    pub fn with_workers(self, workers: Workers) -> Pipeline {
        Pipeline { workers: Some(workers), ..self }
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
        match &self.workers {
            Some(workers) => workers.run(|| self.predict_here(plan, on_step)),
            None => self.predict_here(plan, on_step),
        }
    }

    /// Predicts on the thread that calls.
    fn predict_here(&self, plan: &PredictPlan, on_step: &mut OnStep) -> Result<Vec<Image>, Error> {
        let scale = self.configs.vae.scale();
        check_size("width", plan.width, scale)?;
        check_size("height", plan.height, scale)?;
        prompt::warn_about_syntax([&plan.prompt, &plan.negative_prompt], plan.prompt_syntax);
        let scheduler = self.scheduler.clone().with_spacing(plan.timestep_spacing);
        let schedule = Schedule::new(plan.scheduler, &scheduler, plan.steps)?;
        let mut progress = Progress { done: 0, steps: plan.num_outputs * schedule.steps(), on_step };
        progress.report()?;
        // Before the files are read: a file that changes while it is read is read again for the next request.
        let prompts = [plan.negative_prompt.as_str(), plan.prompt.as_str()];
        let scales = (0..plan.replicate_weights.len()).map(|i| plan.file_scale(i)).collect();
        let tagged = Tagged::read(&prompts, &plan.replicate_weights, scales);
        few_steps::check(plan, &schedule, &tagged.scales, self.folder.path())?;
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
        let denoiser = self.denoiser(unet, &embeds, plan);
        tracing::info!("denoising, {} steps", progress.steps);
        let mut latents = Vec::new();
        for i in 0..plan.num_outputs {
            latents.push(self.sample(&denoiser, &schedule, plan, plan.image_seed(i), &mut progress)?);
        }
        drop(denoiser);
        cpu::trim_pool();
        let mut images = Vec::new();
        for (i, latents) in latents.iter().enumerate() {
            progress.report()?;
            let seed = plan.image_seed(i);
            let mut image = latents::decode(vae, &self.configs.vae, latents, self.options.dtype, seed)?;
            if plan.apply_watermark {
                watermark::embed(&mut image.rgb, image.width, image.height);
            }
            images.push(image);
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
        let embeds = self.prompts.encode(&self.folder, adapters, prompts, plan.prompt_syntax)?;
        cpu::trim_pool();
        Ok(if guided(plan) && zeros { embeds.after_zeros() } else { embeds })
    }

    /// The denoiser with the plan's conditioning.
    fn denoiser<'a>(&self, unet: &'a UNet, embeds: &PromptEmbeds, plan: &PredictPlan) -> Denoiser<'a> {
        let guidance = guided(plan).then_some(plan.guidance_scale as f32);
        let context = self.prepare(unet, embeds, plan);
        Denoiser { unet, context, dtype: self.options.dtype, guidance }
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
        denoiser: &Denoiser,
        schedule: &Schedule,
        plan: &PredictPlan,
        seed: u64,
        progress: &mut Progress,
    ) -> Result<Tensor, Error> {
        let scale = self.configs.vae.scale();
        let shape = [plan.height / scale, plan.width / scale, self.configs.unet.in_channels];
        let mut noise = Noise::new(self.options.rng, seed, shape);
        let x = ops::scale(&noise.draw(), schedule.init_noise_sigma());
        let mut stopped = Ok(());
        let result = samplers::sample(
            schedule,
            0..schedule.steps(),
            x,
            &mut Hooks {
                denoise: &mut |x, t| denoiser.output(x, t),
                noise: &mut || noise.draw(),
                constrain: &mut |x, _level| x,
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

    /// Reads the plan's trained weights, and checks them against the model.
    fn adapters(&self, plan: &PredictPlan, tagged: &Tagged) -> Result<Adapters, Error> {
        if plan.replicate_weights.is_empty() {
            return Ok(Adapters::default());
        }
        let modules = Modules::of(&self.folder, &self.configs)?;
        let adapters = Adapters::load(&plan.replicate_weights, &tagged.scales, &modules, &self.configs)?;
        for (i, file) in plan.replicate_weights.iter().enumerate() {
            if plan.file_scales.get(i).is_some_and(Option::is_some) && !adapters.is_scaled(i) {
                tracing::warn!(
                    "{}: its scale changes nothing: the file has nothing that is added",
                    file.display()
                );
            }
        }
        Ok(adapters)
    }

    /// The denoiser with the trained weights merged in. The kept denoiser is used if it has exactly these weights.
    fn unet(&self, adapters: &Adapters, fingerprint: Fingerprint) -> Result<Arc<UNet>, Error> {
        let patch = adapters.patch(Component::UNet);
        let wanted = (!patch.is_empty()).then_some(fingerprint);
        self.unet.get(wanted, || {
            let store = store_for(self.options.dtype);
            let weights = self.folder.weights(Component::UNet, None, store)?.with_hook(patch);
            Ok(UNet::load(&weights, &self.configs.unet)?)
        })
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
