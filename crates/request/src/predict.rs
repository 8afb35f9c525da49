//! The request for a prediction.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::InputError;
use crate::scheduler::Scheduler;
use crate::schema::{self, Schema};

/// Widths and heights are multiples of this many pixels: one latent is 8×8 pixels.
pub const SIZE_MULTIPLE: usize = 8;
/// The widths and heights that a request may have, in pixels.
pub const SIZES: std::ops::RangeInclusive<usize> = 8..=4096;
const MIN_SIZE: usize = *SIZES.start();
const MAX_SIZE: usize = *SIZES.end();

/// The wire form of a prediction: every field of the published interface, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Input")]
pub struct PredictInput {
    /// Input prompt
    pub prompt: String,
    /// Input Negative Prompt
    pub negative_prompt: String,
    /// Input image for img2img or inpaint mode
    #[schemars(extend("format" = "uri"))]
    pub image: Option<String>,
    /// Input mask for inpaint mode. Black areas will be preserved, white areas will be inpainted.
    #[schemars(extend("format" = "uri"))]
    pub mask: Option<String>,
    /// Width of output image
    #[schemars(range(min = MIN_SIZE, max = MAX_SIZE), extend("multipleOf" = SIZE_MULTIPLE))]
    pub width: usize,
    /// Height of output image
    #[schemars(range(min = MIN_SIZE, max = MAX_SIZE), extend("multipleOf" = SIZE_MULTIPLE))]
    pub height: usize,
    /// Number of images to output.
    #[schemars(range(min = 1, max = 4))]
    pub num_outputs: usize,
    /// scheduler
    pub scheduler: Scheduler,
    /// Number of denoising steps
    #[schemars(range(min = 1, max = 500))]
    pub num_inference_steps: usize,
    /// Scale for classifier-free guidance
    #[schemars(range(min = 1, max = 50))]
    pub guidance_scale: f64,
    /// Prompt strength when using img2img / inpaint. 1.0 corresponds to full destruction of information in image
    #[schemars(range(min = 0, max = 1))]
    pub prompt_strength: f64,
    /// Random seed. Leave blank to randomize the seed
    pub seed: Option<u64>,
    /// Which refine style to use
    pub refine: Refine,
    /// For expert_ensemble_refiner, the fraction of noise to use
    #[schemars(range(min = 0, max = 1))]
    pub high_noise_frac: f64,
    /// For base_image_refiner, the number of steps to refine, defaults to num_inference_steps
    pub refine_steps: Option<usize>,
    /// Applies a watermark to enable determining if an image is generated in downstream applications. If you have
    /// other provisions for generating or deploying images safely, you can use this to disable watermarking.
    pub apply_watermark: bool,
    /// LoRA additive scale. Only applicable on trained models.
    #[schemars(range(min = 0, max = 1))]
    pub lora_scale: f64,
    /// Replicate LoRA weights to use. Leave blank to use the default weights.
    #[schemars(extend("x-files" = true))]
    pub replicate_weights: Option<String>,
    /// Disable safety checker for generated images. This feature is only available through the API. See
    /// [https://replicate.com/docs/how-does-replicate-work#safety](https://replicate.com/docs/how-does-replicate-work#safety)
    pub disable_safety_checker: bool,
}

impl Default for PredictInput {
    fn default() -> PredictInput {
        PredictInput {
            prompt: "An astronaut riding a rainbow unicorn".into(),
            negative_prompt: String::new(),
            image: None,
            mask: None,
            width: 1024,
            height: 1024,
            num_outputs: 1,
            scheduler: Scheduler::default(),
            num_inference_steps: 50,
            guidance_scale: 7.5,
            prompt_strength: 0.8,
            seed: None,
            refine: Refine::NoRefiner,
            high_noise_frac: 0.8,
            refine_steps: None,
            apply_watermark: true,
            lora_scale: 0.6,
            replicate_weights: None,
            disable_safety_checker: false,
        }
    }
}

/// The ways to use a refiner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refine {
    /// The base model alone.
    NoRefiner,
    /// The refiner takes over the last part of the sampling.
    ExpertEnsembleRefiner,
    /// The refiner goes over the finished picture.
    BaseImageRefiner,
}

impl PredictInput {
    /// The published schema.
    pub fn schema() -> Schema {
        Schema::of::<PredictInput>()
    }

    /// The schema on the command line. `scheduler` also takes the samplers beyond the published ones. `lora_scale` may be any number, even above 1 or negative. A guidance below 1 means no
    /// guidance, as in diffusers; the published interface starts at 1.
    pub fn command_line_schema() -> Schema {
        let samplers = Scheduler::ALL.map(Scheduler::name);
        let schema = PredictInput::schema().with_choices("scheduler", &samplers);
        schema.without_limits("lora_scale").with_minimum("guidance_scale", 0)
    }

    /// Makes a request from its JSON object. `given` has the fields that the caller gave; the others have their defaults.
    ///
    /// # Errors
    /// A field is unknown, or a value has the wrong type or is out of range.
    pub fn from_json(given: Map<String, Value>) -> Result<PredictInput, InputError> {
        PredictInput::from_fields(&PredictInput::schema(), given)
    }

    /// [`Self::from_json`] with the wider schema of the command line, [`Self::command_line_schema`].
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_command_line(given: Map<String, Value>) -> Result<PredictInput, InputError> {
        PredictInput::from_fields(&PredictInput::command_line_schema(), given)
    }

    fn from_fields(schema: &Schema, given: Map<String, Value>) -> Result<PredictInput, InputError> {
        let given = schema::check(schema, given)?;
        schema::deserialize(given)
    }
}
