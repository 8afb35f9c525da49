//! From a request's fields to the bytes of its pictures: what `calotype predict` and the service share.
//!
//! ```text
//! args.rs   the options besides the request
//! ```

mod args;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use calotype_models::{ModelFolder, ModelPaths};
use calotype_request::PredictInput;
use calotype_sdxl::pipeline::{Image, Pipeline};
use calotype_sdxl::safety::Safety;
use calotype_sdxl::samplers::Spacing;
use calotype_sdxl::watermark::{self, MIN_SIDE};
use calotype_sdxl::{ArgumentError, PredictPlan, Refine};
use serde_json::{Map, Value};

pub use self::args::PredictorArgs;
use self::args::name_of;
use crate::failure::Failure;
use crate::infotext::{self, Maker};
use crate::{hub, model, picture, plans, safety};

/// The refiner that was trained for SDXL.
const REFINER: &str = "stabilityai/stable-diffusion-xl-refiner-1.0";

/// A model that is open, and how it makes pictures.
pub struct Predictor {
    args: PredictorArgs,
    /// The path of the model.
    model: PathBuf,
    pub pipeline: Pipeline,
    /// The side of a latent, in pixels: pictures' sides are multiples of it.
    pub latent_scale: usize,
    maker: Maker,
    /// The name of the pipeline's refiner, if it has one.
    refiner: Option<String>,
}

impl PredictorArgs {
    /// The plan of the request with these fields. Its picture and mask are decoded; what depends on the model is not settled.
    ///
    /// # Errors
    /// A field is invalid, or its file cannot be read.
    pub fn plan(&self, given: &Map<String, Value>) -> Result<PredictPlan, Failure> {
        let plan = plans::predict(PredictInput::from_command_line(given.clone())?)?;
        if plan.prompt.trim().is_empty() {
            tracing::warn!("the prompt is empty: the picture may show anything");
        }
        let timestep_spacing = self.timestep_spacing.map(Spacing::from);
        Ok(PredictPlan { timestep_spacing, prompt_syntax: self.prompt_syntax(), ..plan })
    }

    /// Whether nobody has named a model, so that it is the pocket model.
    pub fn is_unasked(&self) -> bool {
        self.model.model.is_none()
    }
}

impl Predictor {
    /// Opens the model at `paths`: its configs and tokenizers.
    ///
    /// # Errors
    /// A file of the model is missing or invalid.
    pub fn open(args: PredictorArgs, paths: &ModelPaths) -> Result<Predictor, Failure> {
        let maker = args.maker(&paths.model);
        tracing::info!("model {}, {}, {} threads", maker.model, maker.dtype, rayon::current_num_threads());
        let folder = ModelFolder::open_paths(paths).map_err(calotype_sdxl::Error::from)?;
        let latent_scale = folder.configs().map_err(calotype_sdxl::Error::from)?.vae.scale();
        let pipeline = Pipeline::of(folder, args.options())?;
        Ok(Predictor { args, model: paths.model.clone(), pipeline, latent_scale, maker, refiner: None })
    }

    /// The same with the refiner that the plan needs, if it needs one. What has a name on a hub is fetched.
    ///
    /// # Errors
    /// No refiner is known for the model, or the refiner cannot be had.
    pub fn with_refiner_for(self, plan: &PredictPlan, quiet: bool) -> Result<Predictor, Failure> {
        if !is_refined(plan) || self.refiner.is_some() {
            return Ok(self);
        }
        let refiner = self.refiner_for(plan)?.unwrap_or_default();
        let folder = model::named("--refiner", &refiner, quiet);
        let folder = folder.map_err(|failure| match self.args.refiner {
            None => failure.with("(SDXL's refiner, some 6 GB; --refiner names another)"),
            Some(_) => failure,
        })?;
        let pipeline = self.pipeline.with_refiner(&folder)?;
        Ok(Predictor { pipeline, refiner: Some(name_of(Some(&refiner), &folder)), ..self })
    }

    /// The refiner that the plan needs, by its name or path.
    ///
    /// # Errors
    /// No refiner is known for the model.
    pub fn refiner_for(&self, plan: &PredictPlan) -> Result<Option<PathBuf>, Failure> {
        match &self.args.refiner {
            _ if !is_refined(plan) => Ok(None),
            Some(refiner) => Ok(Some(refiner.clone())),
            None if self.pipeline.is_sdxl() => Ok(Some(REFINER.into())),
            None => {
                let expected = "--refiner, as no refiner is known for this model";
                Err(ArgumentError::new("refine", expected, "none").into())
            }
        }
    }

    /// The same with a small decoder for previews: its folder, or its name on the hub, from where it is fetched.
    ///
    /// # Errors
    /// There is no such decoder.
    pub fn with_preview_vae(self, given: &Path, quiet: bool) -> Result<Predictor, Failure> {
        let folder = hub::component(hub::Kind::PreviewVae, given, quiet)?;
        Ok(Predictor { pipeline: self.pipeline.with_preview_vae(&folder)?, ..self })
    }

    /// Settles what depends on the model: the sizes that the request lacks.
    ///
    /// # Errors
    /// The request's picture is too small for the model.
    pub fn settled(&self, plan: PredictPlan, given: &Map<String, Value>) -> Result<PredictPlan, Failure> {
        plans::predict_at_size(plan, given, &self.pipeline)
    }

    /// The safety checker, if there is one. `disabled`: the request is without.
    ///
    /// # Errors
    /// As [`safety::open`].
    pub fn safety(&self, disabled: bool, quiet: bool) -> Result<Option<Safety>, Failure> {
        safety::open(self.args.safety_checker.as_deref(), &self.model, disabled, quiet)
    }

    /// The line that pictures are too small for the watermark. A small model's pictures always are: there the line is for those who
    /// have asked for the watermark.
    pub fn without_watermark(
        &self,
        plan: &PredictPlan,
        given: &Map<String, Value>,
        images: &[Image],
    ) -> Option<String> {
        let small = |image: &&Image| !watermark::fits(image.width, image.height);
        let image = images.iter().find(small).filter(|_| plan.apply_watermark)?;
        let native = self.pipeline.native_size();
        let expected = given.contains_key("apply_watermark") || native.is_none_or(|side| side >= MIN_SIDE);
        let (width, height) = (image.width, image.height);
        expected.then(|| format!("no watermark: {width} × {height} is below {MIN_SIDE} × {MIN_SIDE} pixels"))
    }

    /// Writes a picture of the plan as PNG, with what made it.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write_png(&self, to: impl Write, image: &Image, plan: &PredictPlan) -> io::Result<()> {
        let maker =
            Maker { refiner: self.refiner.clone().filter(|_| is_refined(plan)), ..self.maker.clone() };
        let texts = [
            ("parameters", infotext::automatic1111(plan, image.seed, &maker)),
            ("calotype", infotext::json(plan, image.seed, &maker)),
        ];
        picture::write_png(to, (image.width, image.height), &image.rgb, &texts)
    }
}

/// Whether a refiner makes steps of the plan's pictures. With a fraction of 1, the base model makes all.
fn is_refined(plan: &PredictPlan) -> bool {
    let all_base = plan.refine == Refine::ExpertEnsembleRefiner && plan.high_noise_frac >= 1.0;
    plan.refine != Refine::NoRefiner && !all_base
}
