//! A training: its wire form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::InputError;
use crate::schema::{self, Schema};

/// Sides of training pictures are multiples of this many pixels, so that latents can be halved three times.
pub const RESOLUTION_MULTIPLE: usize = 64;

/// The wire form of a training: every field of the published interface, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "TrainingInput", extend("required" = ["input_images"]))]
pub struct TrainInput {
    /// A .zip or .tar file containing the image files that will be used for fine-tuning
    #[schemars(extend("format" = "uri", "x-folder" = true))]
    pub input_images: String,
    /// Random seed for reproducible training. Leave empty to use a random seed
    pub seed: Option<u64>,
    /// Square pixel resolution which your images will be resized to for training
    #[schemars(range(min = 64, max = 2048), extend("multipleOf" = RESOLUTION_MULTIPLE))]
    pub resolution: usize,
    /// Batch size (per device) for training
    #[schemars(range(min = 1, max = 1024))]
    pub train_batch_size: usize,
    /// Number of epochs to loop through your training dataset
    #[schemars(range(min = 1, max = 10_000_000))]
    pub num_train_epochs: usize,
    /// Number of individual training steps. Takes precedence over num_train_epochs
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_train_steps: usize,
    /// Whether to use LoRA training. If set to False, will use Full fine tuning
    pub is_lora: bool,
    /// Learning rate for the U-Net. We recommend this value to be somewhere between `1e-6` to `1e-5`.
    #[schemars(range(min = 0))]
    pub unet_learning_rate: f64,
    /// Scaling of learning rate for training textual inversion embeddings. Don't alter unless you know what you're
    /// doing.
    #[schemars(range(min = 0))]
    pub ti_lr: f64,
    /// Scaling of learning rate for training LoRA embeddings. Don't alter unless you know what you're doing.
    #[schemars(range(min = 0))]
    pub lora_lr: f64,
    /// Rank of LoRA embeddings. Don't alter unless you know what you're doing.
    #[schemars(range(min = 1, max = 1024))]
    pub lora_rank: usize,
    /// Learning rate scheduler to use for training
    pub lr_scheduler: LrScheduler,
    /// Number of warmup steps for lr schedulers with warmups.
    pub lr_warmup_steps: usize,
    /// A unique string that will be trained to refer to the concept in the input images. Can be anything, but TOK
    /// works well
    pub token_string: String,
    /// Text which will be used as prefix during automatic captioning. Must contain the `token_string`. For example, if
    /// caption text is 'a photo of TOK', automatic captioning will expand to 'a photo of TOK under a bridge', 'a photo
    /// of TOK holding a cup', etc.
    pub caption_prefix: String,
    /// Prompt that describes part of the image that you will find important. For example, if you are fine-tuning your
    /// pet, `photo of a dog` will be a good prompt. Prompt-based masking is used to focus the fine-tuning process on
    /// the important/salient parts of the image
    pub mask_target_prompts: Option<String>,
    /// If you want to crop the image to `target_size` based on the important parts of the image, set this to True. If
    /// you want to crop the image based on face detection, set this to False
    pub crop_based_on_salience: bool,
    /// If you want to use face detection instead of CLIPSeg for masking. For face applications, we recommend using
    /// this option.
    pub use_face_detection_instead: bool,
    /// How blurry you want the CLIPSeg mask to be. We recommend this value be something between `0.5` to `1.0`. If you
    /// want to have more sharp mask (but thus more errorful), you can decrease this value.
    pub clipseg_temperature: f64,
    /// verbose output
    pub verbose: bool,
    /// Number of steps between saving checkpoints. Set to very very high number to disable checkpointing, because you
    /// don't need one.
    #[schemars(range(min = 1))]
    pub checkpointing_steps: usize,
    /// Filetype of the input images. Can be either `zip` or `tar`. By default its `infer`, and it will be inferred
    /// from the ext of input file.
    pub input_images_filetype: FileType,
}

impl Default for TrainInput {
    fn default() -> TrainInput {
        TrainInput {
            // Required, so this value never gets into a plan.
            input_images: String::new(),
            seed: None,
            resolution: 512,
            train_batch_size: 4,
            num_train_epochs: 4000,
            max_train_steps: 1000,
            is_lora: true,
            unet_learning_rate: 1e-6,
            ti_lr: 3e-4,
            lora_lr: 1e-4,
            lora_rank: 32,
            lr_scheduler: LrScheduler::Constant,
            lr_warmup_steps: 100,
            token_string: "TOK".into(),
            caption_prefix: "a photo of TOK, ".into(),
            mask_target_prompts: None,
            crop_based_on_salience: true,
            use_face_detection_instead: false,
            clipseg_temperature: 1.0,
            verbose: true,
            checkpointing_steps: 200,
            input_images_filetype: FileType::Infer,
        }
    }
}

/// The fields that concern the set alone.
const OF_THE_SET: [&str; 11] = [
    "input_images",
    "seed",
    "resolution",
    "token_string",
    "caption_prefix",
    "mask_target_prompts",
    "crop_based_on_salience",
    "use_face_detection_instead",
    "clipseg_temperature",
    "verbose",
    "input_images_filetype",
];

/// What the published description of a field leaves out, or says otherwise than the published program does.
const CROP: (&str, &str) = (
    "crop_based_on_salience",
    "Here, as in the published program: true crops around what the mask shows, which is the largest face with \
     use_face_detection_instead; false crops in the middle",
);

impl TrainInput {
    /// The published schema.
    pub fn schema() -> Schema {
        Schema::of::<TrainInput>()
    }

    /// The schema on the command line: the published fields, and the weights that a training begins from.
    pub fn command_line_schema() -> Schema {
        let description = "Trained weights to begin from, of the same kind and rank [default: random]";
        TrainInput::schema().with_path("replicate_weights", description).with_addition(CROP.0, CROP.1)
    }

    /// The fields that say what the training set is made of.
    pub fn preprocess_schema() -> Schema {
        TrainInput::schema().with_only(&OF_THE_SET).with_addition(CROP.0, CROP.1)
    }

    /// Makes a request from its JSON object. `given` has the fields that the caller gave; the others have their defaults. The
    /// default of `caption_prefix` contains the given token.
    ///
    /// # Errors
    /// A field is unknown, a value has the wrong type or is out of range.
    pub fn from_json(given: Map<String, Value>) -> Result<TrainInput, InputError> {
        let given = schema::check(&TrainInput::schema(), given)?;
        let has_prefix = given.contains_key("caption_prefix");
        let mut input: TrainInput = schema::deserialize(given)?;
        if !has_prefix {
            input.caption_prefix = format!("a photo of {}, ", input.token_string);
        }
        Ok(input)
    }
}

/// How the learning rate goes over a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// The same throughout, without a warm-up.
    Constant,
    /// Up over the warm-up steps, then down to 0 at the last step.
    Linear,
}

/// What kind of archive the training pictures come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// A zip file.
    Zip,
    /// A tar file.
    Tar,
    /// What the file itself says.
    Infer,
}

/// The number of epochs, if a request gives it and not `max_train_steps`, which takes precedence.
pub fn epochs(given: &Map<String, Value>) -> Option<usize> {
    let epochs = given.get("num_train_epochs").filter(|_| !given.contains_key("max_train_steps"));
    epochs.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
}
