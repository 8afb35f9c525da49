//! A model: a folder in the diffusers layout (`model_index.json`, and a sub-folder with a config for each component), or a
//! single file. All sizes come from these files. They are checked here, so that the networks can rely on them.

mod component;
mod configs;

use std::path::{Path, PathBuf};

use calotype_tensor::DType;

use crate::Error;
use crate::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::json::{ConfigError, Json};
use crate::single::{self, SingleFile, Slice};
use crate::tokenizer::{CLIP_VOCABULARY, Tokenizer, TokenizerError};
use crate::weights::{Weights, WeightsError};
pub use component::Component;
pub use configs::ModelConfigs;

const PIPELINES: [&str; 3] =
    ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"];

/// The paths of a model's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPaths {
    /// A folder in diffusers' layout, or a single file.
    pub model: PathBuf,
    /// For a single file: a folder in diffusers' layout whose configs, tokenizers and scheduler are used with the file's tensors.
    pub config: Option<PathBuf>,
    /// Another VAE than the model's: a VAE's folder, the folder of a model that has one, or a single file.
    pub vae: Option<PathBuf>,
}

/// The place of a component's config and weights.
#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    File(Slice),
}

/// An opened model: a folder in diffusers' layout, described by its `model_index.json`, or a single file.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    single: Option<Box<SingleFile>>,
    /// The folder of the configs that a single file's tensors are used with.
    config: Option<PathBuf>,
    /// The VAE that replaces the model's.
    vae: Option<Place>,
    /// Whether the model has a first text encoder (SDXL base has one, the refiner has none).
    pub has_text_encoder: bool,
    /// The class of diffusers that the index names for the scheduler, if any.
    pub scheduler_class: Option<String>,
    /// A setting of the pipeline. In diffusers, zeros replace the negative prompt's embeddings if no negative prompt is given.
    pub force_zeros_for_empty_prompt: bool,
    /// Whether the UNet's time ids contain an aesthetic score (in the refiner, they do).
    pub requires_aesthetics_score: bool,
}

impl ModelFolder {
    /// Opens a folder and reads its `model_index.json`, or a single file and reads its header.
    ///
    /// # Errors
    /// Of a folder: the index is missing, is not valid JSON, or describes no SDXL pipeline with known components. Of a single file: the
    /// file is not a safetensors file, is of another model, or lacks a part.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        Self::open_paths(&ModelPaths { model: path.to_path_buf(), ..ModelPaths::default() })
    }

    /// As [`Self::open`], with the other paths.
    ///
    /// # Errors
    /// As [`Self::open`]; `config` is not a model's folder or does not suit the file; `vae` is not a VAE.
    pub fn open_paths(paths: &ModelPaths) -> Result<Self, ConfigError> {
        let path = &paths.model;
        let mut model = match (path.is_file(), &paths.config) {
            (false, None) => Self::open_folder(path)?,
            (false, Some(_)) => {
                let problem =
                    "a folder has configs of its own: expected no other ones (--config is for single files)";
                return Err(ConfigError::file(path, problem));
            }
            (true, config) => Self::open_file(path, config.as_deref(), paths.vae.is_none())?,
        };
        model.vae = paths.vae.as_deref().map(replacing_vae).transpose()?;
        Ok(model)
    }

    fn open_file(path: &Path, config: Option<&Path>, needs_vae: bool) -> Result<Self, ConfigError> {
        let mut single = SingleFile::open(path, needs_vae)?;
        let index = config.map(Self::open_folder).transpose()?;
        if let Some(index) = index.as_ref().filter(|_| single.markers.any()) {
            let mut scheduler = Json::read(&index.scheduler_config_path())?.value;
            single.markers.apply(&mut scheduler);
            single.scheduler = scheduler.to_string();
        }
        let (refiner, has_text_encoder) = (single.is_refiner, single.text_encoder.is_some());
        if let Some(index) = &index
            && index.has_text_encoder != has_text_encoder
        {
            let of = |has: bool| if has { "two text encoders" } else { "one text encoder" };
            let problem = format!(
                "expected the configs of a model with {}, as {} has, found {}",
                of(has_text_encoder),
                path.display(),
                of(index.has_text_encoder)
            );
            return Err(ConfigError::file(&index.path, problem));
        }
        Ok(Self {
            path: path.to_path_buf(),
            single: Some(Box::new(single)),
            config: config.map(Path::to_path_buf),
            vae: None,
            has_text_encoder,
            scheduler_class: index.as_ref().and_then(|index| index.scheduler_class.clone()),
            force_zeros_for_empty_prompt: index.as_ref().map_or(!refiner, |i| i.force_zeros_for_empty_prompt),
            requires_aesthetics_score: index.as_ref().map_or(refiner, |i| i.requires_aesthetics_score),
        })
    }

    fn open_folder(path: &Path) -> Result<Self, ConfigError> {
        let index = path.join("model_index.json");
        if !index.is_file() {
            let found = match () {
                () if path.is_dir() => "a folder without one",
                () if path.exists() => "no folder",
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
            single: None,
            config: None,
            vae: None,
            has_text_encoder,
            scheduler_class: json.value["scheduler"][1].as_str().map(String::from),
            force_zeros_for_empty_prompt: flag(&json, "force_zeros_for_empty_prompt", true)?,
            requires_aesthetics_score: flag(&json, "requires_aesthetics_score", false)?,
        })
    }

    /// The path of the folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the scheduler's configuration; of the model itself, if the model is a single file without `config`.
    pub fn scheduler_config_path(&self) -> PathBuf {
        match self.folder() {
            Some(folder) => folder.join("scheduler").join("scheduler_config.json"),
            None => self.path.clone(),
        }
    }

    /// The scheduler's configuration of a single file: SDXL's, or that of `config`, changed as the file's markers say. `None`: the
    /// configuration is a file, at [`Self::scheduler_config_path`].
    pub fn scheduler_config(&self) -> Option<&str> {
        let single = self.single.as_ref().filter(|file| self.config.is_none() || file.markers.any())?;
        Some(&single.scheduler)
    }

    /// The folder with configs, tokenizers and the scheduler. `None`: a single file without `config`.
    pub fn folder(&self) -> Option<&Path> {
        if self.single.is_none() { Some(&self.path) } else { self.config.as_deref() }
    }

    /// Where a component's config and weights are.
    fn place(&self, component: Component) -> Result<Place, ConfigError> {
        if let (Component::Vae, Some(vae)) = (component, &self.vae) {
            return Ok(vae.clone());
        }
        let Some(single) = &self.single else {
            return Ok(Place::Folder(self.path.join(component.name())));
        };
        let slice = match component {
            Component::TextEncoder => single.text_encoder.as_ref(),
            Component::TextEncoder2 => Some(&single.text_encoder_2),
            Component::UNet => Some(&single.unet),
            Component::Vae => single.vae.as_ref(),
        };
        let missing = || ConfigError::file(&self.path, format!("no {}", component.name()));
        slice.cloned().map(Place::File).ok_or_else(missing)
    }

    /// Reads every component's config and checks that the configs fit each other. Of the UNet's input channels, there may be as many
    /// as of the latents, or in inpainting models 1 for the mask and as many for the masked picture in addition.
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
        let file = self.folder().map_or(self.path.clone(), |folder| folder.join("unet").join("config.json"));
        configs.check_fit(&file, self.time_ids())?;
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
        let place = self.place(component).map_err(|e| match e {
            ConfigError::File { path, problem } => WeightsError::File { path, problem },
            other => WeightsError::Index(other.to_string()),
        })?;
        match place {
            Place::Folder(folder) => Weights::open(&folder, component.network(), variant, store),
            Place::File(slice) => slice.weights(store),
        }
    }

    /// A CRC-32 that tells models apart: of the configs, and of samples of the weights.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn fingerprint(&self) -> Result<u32, Error> {
        let mut crc = flate2::Crc::new();
        let scheduler = match self.scheduler_config() {
            Some(text) => Json::parse(&self.path, text)?,
            None => Json::read(&self.scheduler_config_path())?,
        };
        crc.update(scheduler.value.to_string().as_bytes());
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
        let tokenizer = match self.folder() {
            Some(folder) => Tokenizer::load(&folder.join(encoder.tokenizer()))?,
            None if config.vocab_size < CLIP_VOCABULARY => {
                let problem = format!(
                    "expected {CLIP_VOCABULARY} rows in {}'s token embedding, as CLIP's tokenizer has tokens, found {}: --config \
                     names a folder with the file's own tokenizer",
                    encoder.name(),
                    config.vocab_size
                );
                return Err(ConfigError::file(&self.path, problem).into());
            }
            None => Tokenizer::carried(&self.path, encoder.padding())?,
        };
        tokenizer.for_encoder(config.vocab_size, config.max_position_embeddings)
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
        match (self.place(component)?, &self.config) {
            (Place::Folder(folder), _) => Json::read(&folder.join("config.json")),
            (Place::File(_), Some(config)) if component != Component::Vae || self.vae.is_none() => {
                Json::read(&config.join(component.name()).join("config.json"))
            }
            (Place::File(slice), _) => Ok(slice.json()),
        }
    }

    /// A component's config, as the JSON of a `config.json`.
    ///
    /// # Errors
    /// The file of the config is missing or invalid.
    pub fn config_json(&self, component: Component) -> Result<serde_json::Value, ConfigError> {
        Ok(self.json(component)?.value)
    }

    /// The number of the UNet's time ids: original size, crop and target size, or with an aesthetic score,
    /// original size, crop and the score.
    pub fn time_ids(&self) -> usize {
        if self.requires_aesthetics_score { 5 } else { 6 }
    }
}

/// The place of a VAE that replaces a model's: a single file, a VAE's own folder, or the folder of a model.
fn replacing_vae(path: &Path) -> Result<Place, ConfigError> {
    if path.is_file() {
        return Ok(Place::File(single::vae(path)?));
    }
    let folders = [path.to_path_buf(), path.join(Component::Vae.name())];
    let found = folders.into_iter().find(|folder| folder.join("config.json").is_file());
    let missing = || {
        let problem = "not a VAE: expected a safetensors file, a folder with config.json, or a model's folder with vae/config.json";
        ConfigError::file(path, problem)
    };
    found.map(Place::Folder).ok_or_else(missing)
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
