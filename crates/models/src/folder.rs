//! The model folder in the diffusers layout: `model_index.json`, and a sub-folder with a config for each
//! component. All sizes come from these files. They are checked here, so that the networks can rely on them.

use std::path::{Path, PathBuf};

use calotype_tensor::DType;

use crate::Error;
use crate::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::json::{ConfigError, Json};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::{Network, Weights, WeightsError};

const PIPELINES: [&str; 3] =
    ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"];

/// A component with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// CLIP ViT-L, absent from the refiner.
    TextEncoder,
    /// OpenCLIP ViT-bigG, with a projection.
    TextEncoder2,
    /// The denoiser of the latents.
    UNet,
    /// The encoder and decoder of pictures.
    Vae,
}

impl Component {
    /// The name of the component's folder, and of its entry in `model_index.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::UNet => "unet",
            Self::Vae => "vae",
        }
    }

    fn tokenizer(self) -> &'static str {
        if self == Self::TextEncoder { "tokenizer" } else { "tokenizer_2" }
    }

    fn network(self) -> Network {
        match self {
            Self::TextEncoder | Self::TextEncoder2 => Network::ClipText,
            Self::UNet => Network::UNet,
            Self::Vae => Network::Vae,
        }
    }
}

/// An opened model folder, described by its `model_index.json`.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    /// Whether the model has a first text encoder (SDXL base has one, the refiner has none).
    pub has_text_encoder: bool,
    /// The class of diffusers that the index names for the scheduler, if any.
    pub scheduler_class: Option<String>,
    /// A setting of the pipeline. In diffusers, zeros replace the negative prompt's embeddings if no negative prompt is given.
    pub force_zeros_for_empty_prompt: bool,
    /// Whether the UNet's time ids contain an aesthetic score (in the refiner, they do).
    pub requires_aesthetics_score: bool,
}

/// The configs of all components, checked against each other.
#[derive(Clone, Debug)]
pub struct ModelConfigs {
    /// The first text encoder's config, if the model has that encoder.
    pub text_encoder: Option<ClipTextConfig>,
    /// The second text encoder's config.
    pub text_encoder_2: ClipTextConfig,
    /// The UNet's config.
    pub unet: UNetConfig,
    /// The VAE's config.
    pub vae: VaeConfig,
}

impl ModelConfigs {
    /// The side of the square pictures that the model was trained on, in pixels (1024 for SDXL). `None`: the UNet's config
    /// lacks it.
    pub fn native_size(&self) -> Option<usize> {
        self.unet.sample_size.map(|latents| latents * self.vae.scale())
    }
}

impl ModelFolder {
    /// Opens a folder and reads its `model_index.json`.
    ///
    /// # Errors
    /// The file is missing, does not parse, or is not that of an SDXL pipeline with known components.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let index = path.join("model_index.json");
        if !index.is_file() {
            let found = match () {
                () if path.is_dir() => "a folder without one",
                () if path.exists() => "a file",
                () => "nothing there",
            };
            let problem = format!(
                "not a model folder: expected model_index.json (diffusers' layout) in it, found {found}"
            );
            return Err(ConfigError::file(path, problem));
        }
        let json = Json::read(&index)?;
        let class = json.value["_class_name"].as_str().unwrap_or("none");
        if !PIPELINES.contains(&class) {
            return Err(json.fail("_class_name", PIPELINES.join(" or "), class));
        }
        component(&json, "unet", &["UNet2DConditionModel"])?;
        component(&json, "vae", &["AutoencoderKL"])?;
        component(&json, "text_encoder_2", &["CLIPTextModelWithProjection"])?;
        component(&json, "tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"])?;
        let has_text_encoder = has(&json, "text_encoder");
        if has_text_encoder {
            component(&json, "text_encoder", &["CLIPTextModel"])?;
            component(&json, "tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"])?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            has_text_encoder,
            scheduler_class: json.value["scheduler"][1].as_str().map(String::from),
            force_zeros_for_empty_prompt: flag(&json, "force_zeros_for_empty_prompt", true)?,
            requires_aesthetics_score: flag(&json, "requires_aesthetics_score", false)?,
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the scheduler's configuration.
    pub fn scheduler_config_path(&self) -> PathBuf {
        self.path.join("scheduler").join("scheduler_config.json")
    }

    /// Reads every component's config and checks that the configs fit each other.
    ///
    /// # Errors
    /// A config is missing or invalid, or two of them do not fit.
    pub fn configs(&self) -> Result<ModelConfigs, ConfigError> {
        let text = |c: Component| ClipTextConfig::from_json(&self.json(c)?);
        let configs = ModelConfigs {
            text_encoder: self.has_text_encoder.then(|| text(Component::TextEncoder)).transpose()?,
            text_encoder_2: text(Component::TextEncoder2)?,
            unet: UNetConfig::from_json(&self.json(Component::UNet)?)?,
            vae: VaeConfig::from_json(&self.json(Component::Vae)?)?,
        };
        self.check_fit(&configs)?;
        Ok(configs)
    }

    /// Opens a component's weights. The files are mapped; tensors are not read yet.
    ///
    /// With `variant`, files of that variant (`fp16`) are preferred. Without it, or if the component has none, plain files come
    /// first, then `fp16` and `bf16`. `store` is the dtype in which matrices are packed; `None` keeps the file's dtype.
    ///
    /// # Errors
    /// The component has no weights, or a file of them is invalid.
    pub fn weights(
        &self,
        component: Component,
        variant: Option<&str>,
        store: Option<DType>,
    ) -> Result<Weights, WeightsError> {
        Weights::open(&self.path.join(component.name()), component.network(), variant, store)
    }

    /// A CRC-32 that tells models apart: of the configs, and of samples of the weights.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn fingerprint(&self) -> Result<u32, Error> {
        let mut crc = flate2::Crc::new();
        crc.update(Json::read(&self.scheduler_config_path())?.value.to_string().as_bytes());
        let first = self.has_text_encoder.then_some(Component::TextEncoder);
        for component in first.into_iter().chain([Component::TextEncoder2, Component::UNet, Component::Vae]) {
            crc.update(self.json(component)?.value.to_string().as_bytes());
            crc.update(&self.weights(component, None, None)?.fingerprint().to_le_bytes());
        }
        Ok(crc.sum())
    }

    /// Loads the tokenizer of a text encoder, with that encoder's limits.
    ///
    /// # Errors
    /// A file of the tokenizer is missing or invalid, or does not suit the encoder.
    pub fn tokenizer(
        &self,
        encoder: Component,
        config: &ClipTextConfig,
    ) -> Result<Tokenizer, TokenizerError> {
        let dir = self.path.join(encoder.tokenizer());
        Tokenizer::load(&dir)?.for_encoder(config.vocab_size, config.max_position_embeddings)
    }

    /// Loads the tokenizers of all text encoders, the first encoder's first.
    ///
    /// # Errors
    /// A file of a tokenizer is missing or invalid, or the tokenizers have different lengths. Their encoders' outputs are
    /// concatenated token by token, so the lengths must be equal.
    pub fn tokenizers(&self, configs: &ModelConfigs) -> Result<Vec<Tokenizer>, TokenizerError> {
        let second = self.tokenizer(Component::TextEncoder2, &configs.text_encoder_2)?;
        let Some(config) = &configs.text_encoder else { return Ok(vec![second]) };
        let first = self.tokenizer(Component::TextEncoder, config)?;
        if first.length() != second.length() {
            let (expected, found) = (first.length(), second.length());
            return Err(second.wrong_length(format!("expected {expected}, as tokenizer has, found {found}")));
        }
        Ok(vec![first, second])
    }

    fn json(&self, component: Component) -> Result<Json, ConfigError> {
        Json::read(&self.path.join(component.name()).join("config.json"))
    }

    /// Checks that the text states and added embeddings of the encoders have the sizes that the UNet takes.
    fn check_fit(&self, configs: &ModelConfigs) -> Result<(), ConfigError> {
        let unet = &configs.unet;
        let fail = |field: &str, expected: String, found: usize| ConfigError::Field {
            file: self.path.join("unet").join("config.json"),
            field: field.into(),
            expected,
            found: found.to_string(),
        };
        let text =
            configs.text_encoder.as_ref().map_or(0, |c| c.hidden_size) + configs.text_encoder_2.hidden_size;
        if unet.cross_attention_dim != text {
            let expected = format!("{text} (the text encoders' hidden_size together)");
            return Err(fail("cross_attention_dim", expected, unet.cross_attention_dim));
        }
        if unet.out_channels != configs.vae.latent_channels {
            let expected = format!("{} (the VAE's latent_channels)", configs.vae.latent_channels);
            return Err(fail("out_channels", expected, unet.out_channels));
        }
        if unet.in_channels != configs.vae.latent_channels {
            let expected = format!("{} (the VAE's latent_channels)", configs.vae.latent_channels);
            return Err(fail("in_channels", expected, unet.in_channels));
        }
        let (pooled, ids) = (configs.text_encoder_2.projection_dim, self.time_ids());
        let added = pooled + ids * unet.addition_time_embed_dim;
        if unet.projection_class_embeddings_input_dim != added {
            let expected = format!(
                "{added} (text_encoder_2's projection_dim {pooled} + {ids} time ids × addition_time_embed_dim {})",
                unet.addition_time_embed_dim
            );
            let found = unet.projection_class_embeddings_input_dim;
            return Err(fail("projection_class_embeddings_input_dim", expected, found));
        }
        Ok(())
    }

    /// The number of the UNet's time ids: original size, crop and target size, or with an aesthetic score,
    /// original size, crop and the score.
    pub fn time_ids(&self) -> usize {
        if self.requires_aesthetics_score { 5 } else { 6 }
    }
}

/// Whether the index names a library and class for `name` (an absent component is `[null, null]`, or no entry).
fn has(json: &Json, name: &str) -> bool {
    json.value[name].get(1).is_some_and(|class| !class.is_null())
}

fn component(json: &Json, name: &str, classes: &[&str]) -> Result<(), ConfigError> {
    let entry = &json.value[name];
    match entry.get(1).and_then(|class| class.as_str()) {
        Some(class) if classes.contains(&class) => Ok(()),
        _ => Err(json.fail(name, format!("[library, {}]", classes.join(" or ")), entry)),
    }
}

fn flag(json: &Json, name: &str, default: bool) -> Result<bool, ConfigError> {
    match json.value.get(name) {
        None | Some(serde_json::Value::Null) => Ok(default),
        Some(serde_json::Value::Bool(value)) => Ok(*value),
        Some(other) => Err(json.fail(name, "true or false", other)),
    }
}
