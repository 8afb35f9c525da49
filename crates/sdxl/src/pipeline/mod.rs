//! Pictures from texts, and from other pictures: encode the prompts and the picture, denoise the latents, decode the latents. As
//! diffusers' `StableDiffusionXLPipeline`, `StableDiffusionXLImg2ImgPipeline` and `StableDiffusionXLInpaintPipeline`.

mod colors;
mod denoiser;
mod finish;
mod generator;
mod given;
mod kept;
mod model;
mod preview;
mod progress;
mod stages;
mod start;

use std::path::Path;
use std::sync::OnceLock;

use calotype_models::weights::store_for;
use calotype_models::{Component, DecoderTiny, ModelFolder, Vae, Weights};
use calotype_tensor::cpu::Workers;
use calotype_tensor::{DType, cpu};

use crate::adapters::{Adapters, Fingerprint, Modules, Tagged};
use crate::error::ArgumentError;
use crate::few_steps;
use crate::plan::{PredictPlan, check_size};
use crate::prompt::{self, PromptEmbeds};
use crate::{Error, input, watermark};
use colors::LatentColors;
use denoiser::Denoiser;
pub use finish::Image;
use generator::Noise;
pub use generator::Rng;
use given::Given;
use kept::KeptUNets;
use model::Model;
pub use preview::Preview;
use preview::PreviewDecoder;
use progress::Progress;
pub use progress::{OnStep, Step};
use stages::Stages;
use start::{Making, Source};

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
/// the trained weights of the last request. A request with other trained weights loads the layers that these or the last ones change;
/// one with a refiner loads the denoisers of both. [`keep`](Self::keep) keeps more than the last denoiser.
///
/// Several threads may predict from one pipeline at the same time, including threads of a rayon pool. Predictions run on the
/// threads that call, unless the pipeline has [workers of its own](Self::with_workers).
pub struct Pipeline {
    base: Model,
    refiner: Option<Model>,
    options: Options,
    workers: Option<Workers>,
    unets: KeptUNets,
    vae: OnceLock<Vae>,
    /// What decodes previews: the linear map, fitted at first use, or a small network.
    colors: OnceLock<LatentColors>,
    tiny: Option<DecoderTiny>,
}

/// The prompts of a request, encoded for each model, with the trained weights of the request.
struct Texts {
    adapters: Adapters,
    fingerprint: Fingerprint,
    base: PromptEmbeds,
    refiner: Option<PromptEmbeds>,
}

impl Pipeline {
    /// Opens a checkpoint: a folder in diffusers' layout or a single file. Reads configs and tokenizers, but no weights yet.
    ///
    /// # Errors
    /// The folder or one of its files is missing or invalid, or the model is a refiner.
    pub fn open(path: &Path, options: Options) -> Result<Pipeline, Error> {
        Self::of(ModelFolder::open(path)?, options)
    }

    /// As [`Self::open`], of a model that is open.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(folder: ModelFolder, options: Options) -> Result<Pipeline, Error> {
        let base = Model::of(folder, options.dtype)?;
        if base.folder.requires_aesthetics_score || !base.folder.has_text_encoder {
            let expected = "a base model (--refiner takes refiners)";
            return Err(ArgumentError::new("model", expected, "a refiner").into());
        }
        let (unets, vae, colors) = (KeptUNets::default(), OnceLock::new(), OnceLock::new());
        Ok(Pipeline { base, refiner: None, options, workers: None, unets, vae, colors, tiny: None })
    }

    /// The same pipeline, whose predictions run on these threads and in their memory. Pipelines with workers of their own do not
    /// wait for each other, and free nothing of each other's memory.
    pub fn with_workers(self, workers: Workers) -> Pipeline {
        Pipeline { workers: Some(workers), ..self }
    }

    /// Keeps the denoisers of several requests, the newest, as long as all of them take at most so many bytes with the one that a request needs.
    /// Without this, or with 0, the last one alone is kept.
    pub fn keep(&self, bytes: u64) {
        self.unets.set_limit(bytes);
    }

    /// The bytes of the networks that are kept for the next request.
    pub fn kept_bytes(&self) -> u64 {
        let vae = self.vae.get().and_then(|_| self.vae_weights().ok());
        self.unets.bytes() + vae.map_or(0, |weights| weights.packed_bytes(|_| true))
    }

    /// Adds a refiner, a folder or a single file: `stabilityai/stable-diffusion-xl-refiner-1.0`, or another model for the same
    /// latents. The base model's VAE is used. The denoisers of both are in memory at the same time only
    /// where [`keep`](Self::keep) leaves room.
    ///
    /// # Errors
    /// The folder or one of its files is missing or invalid, or the model is for other latents.
    pub fn with_refiner(self, path: &Path) -> Result<Pipeline, Error> {
        let refiner = Model::of(ModelFolder::open(path)?, self.options.dtype)?;
        let (ours, its) = (&self.base.configs.vae, &refiner.configs.vae);
        let latents = [ours, its].map(|vae| (vae.latent_channels, vae.scale()));
        check_latents("refiner", latents)?;
        if refiner.configs.unet.in_channels != its.latent_channels {
            let expected = "a model that is not made for inpainting";
            return Err(ArgumentError::new("refiner", expected, "one that is").into());
        }
        // Missing weights are found before the base model runs.
        refiner.folder.weights(Component::UNet, None, None)?;
        Ok(Pipeline { refiner: Some(refiner), ..self })
    }

    /// Adds a small decoder for [previews](Preview), a folder of diffusers' `AutoencoderTiny`, such as `madebyollin/taesdxl`.
    ///
    /// # Errors
    /// The folder or one of its files is missing or invalid, or the decoder is for other latents.
    pub fn with_preview_vae(self, folder: &Path) -> Result<Pipeline, Error> {
        let tiny = DecoderTiny::open(folder)?;
        let (vae, config) = (&self.base.configs.vae, tiny.config());
        let latents = [(vae.latent_channels, vae.scale()), (config.latent_channels, config.scale())];
        check_latents("preview_vae", latents)?;
        Ok(Pipeline { tiny: Some(tiny), ..self })
    }

    /// See [`ModelConfigs::native_size`](calotype_models::ModelConfigs::native_size).
    pub fn native_size(&self) -> Option<usize> {
        self.base.configs.native_size()
    }

    /// Whether the model has the sizes of SDXL's base model, for which a refiner is published.
    pub fn is_sdxl(&self) -> bool {
        self.base.configs.is_sdxl()
    }

    /// The width and height of pictures that are made from a picture of `image` (width, height) pixels; see [`input::size`]. Of
    /// `given`, width and height, those that are there count.
    ///
    /// # Errors
    /// The picture is too small for the model.
    pub fn size_for(
        &self,
        image: (usize, usize),
        given: (Option<usize>, Option<usize>),
    ) -> Result<(usize, usize), Error> {
        let multiple = self.base.configs.vae.scale();
        let ((width, height), scaled) = input::size(image, given, multiple, self.native_size())?;
        if scaled {
            let (w, h) = image;
            tracing::warn!(
                "the image, {w} × {h}, is scaled down to {width} × {height} (width and height choose)"
            );
        }
        Ok((width, height))
    }

    /// Whether diffusers would use zeros for the plan's negative prompt, because the prompt is empty.
    pub fn diffusers_gives_zeros(&self, plan: &PredictPlan) -> bool {
        self.base.folder.force_zeros_for_empty_prompt && guided(plan) && plan.negative_prompt.is_empty()
    }

    /// Makes the plan's pictures. Each picture depends only on the plan and on its own seed.
    ///
    /// # Errors
    /// The plan does not fit the model's sizes or its schedule, its picture and mask do not go together, a file of the model or of
    /// trained weights is missing or invalid, a picture is not finite, or `on_step` breaks.
    pub fn predict(&self, plan: &PredictPlan, on_step: &mut OnStep) -> Result<Vec<Image>, Error> {
        match &self.workers {
            Some(workers) => workers.run(|| self.predict_here(plan, on_step)),
            None => self.predict_here(plan, on_step),
        }
    }

    /// Predicts on the thread that calls.
    fn predict_here(&self, plan: &PredictPlan, on_step: &mut OnStep) -> Result<Vec<Image>, Error> {
        let config = &self.base.configs.vae;
        check_size("width", plan.width, config.scale())?;
        check_size("height", plan.height, config.scale())?;
        self.check_purpose(plan)?;
        let given = Given::of(plan, config.scale())?;
        let stages =
            Stages::of(plan, &self.base.scheduler, self.refiner.as_ref().map(|model| &model.scheduler))?;
        plan.warn_about_unused();
        prompt::warn_about_syntax([&plan.prompt, &plan.negative_prompt], plan.prompt_syntax);
        let steps = plan.num_outputs * stages.steps();
        let mut progress = Progress { done: 0, steps, on_step, decoder: None };
        progress.report()?;
        let texts = self.texts(plan, &stages)?;
        progress.report()?;
        // Loaded before sampling, although mostly used afterwards, so that a broken file is found at once.
        let vae = load_once(&self.vae, || self.load_vae())?;
        let source = given.as_ref().map(|given| Source::encode(given, vae, config, self.is_for_inpainting()));
        cpu::trim_pool();
        let (tiny, colors) = (self.tiny.as_ref(), &self.colors);
        progress.decoder = Some(PreviewDecoder { tiny, colors, vae, config });
        let mut pictures = Vec::new();
        for i in 0..plan.num_outputs {
            let noise = self.noise(plan, i);
            let making = match &source {
                Some(source) => {
                    let full = plan.prompt_strength >= 1.0;
                    source.begin(&stages.schedule, stages.first(), full, noise)
                }
                None => Making::from_noise(&stages.schedule, noise),
            };
            pictures.push(Making { picture: i, ..making });
        }
        drop(source);
        self.denoise(plan, &stages, texts, &mut pictures, &mut progress)?;
        let mut images = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            progress.report()?;
            let mut image = finish::decode(vae, config, &picture.x, self.options.dtype, plan.image_seed(i))?;
            if let Some(Given { picture, mask: Some(mask) }) = &given {
                mask.preserve(picture, &mut image.rgb);
            }
            if plan.apply_watermark {
                watermark::embed(&mut image.rgb, image.width, image.height);
            }
            images.push(image);
        }
        Ok(images)
    }

    /// Makes all steps of all pictures: those of the base model, then those of the refiner.
    fn denoise(
        &self,
        plan: &PredictPlan,
        stages: &Stages,
        texts: Texts,
        pictures: &mut [Making],
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let Texts { adapters, fingerprint, base, refiner } = texts;
        let dtype = self.options.dtype;
        if !stages.base.is_empty() {
            let patch = adapters.patch(Component::UNet);
            let fingerprint = (!patch.is_empty()).then_some(fingerprint);
            let unet = self.unets.base(&self.base, fingerprint, patch)?;
            drop(adapters);
            progress.report()?;
            let denoiser = Denoiser::new(&self.base, unet, &base, plan, dtype);
            tracing::info!("denoising, {} steps", progress.steps);
            let blend = !self.is_for_inpainting();
            for picture in &mut *pictures {
                denoiser.run(&stages.schedule, stages.base.clone(), picture, blend, progress)?;
            }
        }
        cpu::trim_pool();
        let (Some(model), Some(refinement), Some(embeds)) = (&self.refiner, &stages.refiner, refiner) else {
            return Ok(());
        };
        let unet = self.unets.refiner(model)?;
        progress.report()?;
        let denoiser = Denoiser::new(model, unet, &embeds, plan, dtype);
        tracing::info!("refining");
        for picture in pictures {
            // The refiner is not made for inpainting: the preserved part is put back, and it sees the latents alone.
            picture.seen = None;
            if refinement.renoise {
                picture.renoise(&refinement.schedule, refinement.range.start);
            }
            denoiser.run(&refinement.schedule, refinement.range.clone(), picture, true, progress)?;
        }
        drop(denoiser);
        cpu::trim_pool();
        Ok(())
    }

    /// Reads the trained weights, and encodes the prompts for the base model and, if it has steps, for the refiner.
    fn texts(&self, plan: &PredictPlan, stages: &Stages) -> Result<Texts, Error> {
        // Before the files are read: a file that changes while it is read is read again for the next request.
        let prompts = [plan.negative_prompt.as_str(), plan.prompt.as_str()];
        let scales = (0..plan.replicate_weights.len()).map(|i| plan.file_scale(i)).collect();
        let tagged = Tagged::read(&prompts, &plan.replicate_weights, scales);
        few_steps::check(plan, &stages.schedule, &tagged.scales, self.base.folder.path())?;
        let fingerprint = Fingerprint::of(&plan.replicate_weights, &tagged.scales);
        let adapters = self.adapters(plan, &tagged)?;
        let prompts = [tagged.prompts[0].as_str(), tagged.prompts[1].as_str()];
        let zeros = self.options.empty_negative == EmptyNegative::Zeros;
        let base = self.base.encode(&adapters, prompts, plan, zeros)?;
        let refiner = match &self.refiner {
            Some(model) if stages.refiner.is_some() => {
                if !plan.replicate_weights.is_empty() {
                    tracing::warn!(
                        "the refiner has not learnt what replicate_weights contain, and may change the subject"
                    );
                }
                // What the new tokens stand for is unknown to the refiner.
                let prompts = adapters.prompts_without_tokens(&prompts);
                let prompts = [prompts[0].as_str(), prompts[1].as_str()];
                let zeros = zeros && model.folder.force_zeros_for_empty_prompt;
                Some(model.encode(&Adapters::default(), prompts, plan, zeros)?)
            }
            _ => None,
        };
        tracing::info!("prompts encoded");
        Ok(Texts { adapters, fingerprint, base, refiner })
    }

    /// The random numbers of picture `i`.
    fn noise(&self, plan: &PredictPlan, i: usize) -> Noise {
        let vae = &self.base.configs.vae;
        let shape = [plan.height / vae.scale(), plan.width / vae.scale(), vae.latent_channels];
        Noise::new(self.options.rng, plan.image_seed(i), shape)
    }

    /// Whether the base model's denoiser sees a mask and the preserved part, besides the latents.
    fn is_for_inpainting(&self) -> bool {
        self.base.configs.unet.in_channels > self.base.configs.vae.latent_channels
    }

    /// A model that is made for inpainting needs a picture and a mask.
    fn check_purpose(&self, plan: &PredictPlan) -> Result<(), ArgumentError> {
        let missing = match (&plan.image, &plan.mask) {
            (None, _) => "image",
            (_, None) => "mask",
            _ => return Ok(()),
        };
        if !self.is_for_inpainting() {
            return Ok(());
        }
        let channels = self.base.configs.unet.in_channels;
        let expected =
            format!("image and mask, as the model is for inpainting (its UNet takes {channels} channels)");
        Err(ArgumentError::new(missing, expected, "none"))
    }

    /// Reads the plan's trained weights, and checks them against the model.
    fn adapters(&self, plan: &PredictPlan, tagged: &Tagged) -> Result<Adapters, Error> {
        if plan.replicate_weights.is_empty() {
            return Ok(Adapters::default());
        }
        let Model { folder, configs, .. } = &self.base;
        let modules = Modules::of(folder, configs)?;
        let adapters = Adapters::load(&plan.replicate_weights, &tagged.scales, &modules, configs)?;
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

    fn load_vae(&self) -> Result<Vae, Error> {
        Ok(Vae::load(&self.vae_weights()?, &self.base.configs.vae)?)
    }

    fn vae_weights(&self) -> Result<Weights, Error> {
        Ok(self.base.folder.weights(Component::Vae, None, store_for(self.options.dtype))?)
    }
}

/// Checks that another model is for the same latents. Of each model: the channels of a latent, and its side in pixels.
fn check_latents(name: &str, latents: [(usize, usize); 2]) -> Result<(), ArgumentError> {
    let [expected, found] =
        latents.map(|(channels, scale)| format!("{channels} channels of {scale} × {scale} pixels"));
    let expected_model = format!("a model for the same latents, {expected}");
    if expected == found { Ok(()) } else { Err(ArgumentError::new(name, expected_model, found)) }
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
