//! Models that come as one file in Stability's original layout (`sgm`), as most SDXL checkpoints are passed around. The file's
//! tensors get diffusers' names; its configs come from the shapes of its tensors.

mod derive;
mod kind;
mod names;
mod vae;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_tensor::DType;
use serde_json::{Value, json};

use self::derive::Shapes;
use self::kind::Markers;
pub use self::kind::{Kind, TEXT, UNET, VAE};
pub use self::names::Names;
pub(crate) use self::vae::vae;
use crate::json::{ConfigError, Json};
use crate::weights::{Header, Network, Part, Weights, WeightsError, header};

/// The entry of a file's metadata in which exports keep the configs, because no shape tells some of their numbers.
pub const CONFIGS: &str = "calotype.configs";

/// A model in a single file.
#[derive(Clone, Debug)]
pub(crate) struct SingleFile {
    /// Whether it is the refiner, which has no first text encoder and an aesthetic score among its time ids.
    pub is_refiner: bool,
    pub text_encoder: Option<Slice>,
    pub text_encoder_2: Slice,
    pub unet: Slice,
    /// `None`: the file has no VAE.
    pub vae: Option<Slice>,
    /// The text of a `scheduler_config.json`.
    pub scheduler: String,
    /// What the file's markers say about the scheduler.
    pub markers: Markers,
}

/// One network in a file: the keys that are its own, and their names. A clone is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    path: PathBuf,
    prefix: &'static str,
    /// `None`: the keys are diffusers' own.
    names: Option<Arc<Names>>,
    network: Network,
    config: Value,
}

impl SingleFile {
    /// Reads a file's header, and finds its parts. Without `needs_vae`, the VAE may be missing.
    ///
    /// # Errors
    /// The file is not a safetensors file, is of another model, lacks a part, or has a tensor that is unknown.
    pub fn open(path: &Path, needs_vae: bool) -> Result<Self, ConfigError> {
        let (all, header) = read(path)?;
        let bad = |problem: String| ConfigError::file(path, problem);
        let kind = kind::of(&all, needs_vae).map_err(bad)?;
        let slice = |prefix, names: Option<Names>, network| Slice {
            path: path.to_path_buf(),
            prefix,
            names: names.map(Arc::new),
            network,
            config: Value::Null,
        };
        let unet_shapes = below(&all, kind::UNET);
        let (layers, attention) = derive::unet_blocks(&unet_shapes);
        let names = Names::unet(&layers, &attention);
        let mut unet = slice(kind::UNET, Some(names), Network::UNet);
        let mut text_2 =
            slice(kind.text_2(), Some(Names::of_open_clip(&below(&all, kind.text_2()))), Network::ClipText);
        let mut text = (kind == Kind::Base).then(|| slice(kind::TEXT, None, Network::ClipText));
        let mut vae = vae::in_model(path, &all);
        check_known(path, &all, [Some(&unet), Some(&text_2), text.as_ref(), vae.as_ref()])?;

        let written = written_configs(path, &header)?;
        let config = |name: &str, derived: Value| match written.get(name) {
            Some(config) if config.is_object() => config.clone(),
            _ => derived,
        };
        if let Some(text) = &mut text {
            text.config = config("text_encoder", derive::text(&text.shapes(&all)));
        }
        text_2.config = config("text_encoder_2", derive::text(&text_2.shapes(&all)));
        let pooled = text_2.config["projection_dim"].as_u64().unwrap_or(0) as usize;
        let ids = if kind == Kind::Refiner { 5 } else { 6 };
        unet.config = config("unet", derive::unet(&unet.shapes(&all), &layers, pooled, ids));
        if let Some(vae) = &mut vae {
            vae.config = config("vae", vae.config.clone());
        }
        let markers = Markers::of(&all);
        if let Some(problem) = kind::contradiction(&header.metadata, markers) {
            tracing::warn!("{}: {problem}", path.display());
        }
        let mut scheduler = config("scheduler", scheduler());
        markers.apply(&mut scheduler);
        Ok(Self {
            is_refiner: kind == Kind::Refiner,
            text_encoder: text,
            text_encoder_2: text_2,
            unet,
            vae,
            scheduler: scheduler.to_string(),
            markers,
        })
    }
}

impl Slice {
    /// The network's weights, as [`crate::ModelFolder::weights`].
    pub fn weights(&self, store: Option<DType>) -> Result<Weights, WeightsError> {
        Weights::of_slice(&self.path, self.network, store, |key| self.named(key))
    }

    /// The network's config; errors name the file.
    pub fn json(&self) -> Json {
        Json::of(&self.path, self.config.clone())
    }

    /// diffusers' keys of a tensor. `None`: the tensor is not this network's. Empty: the network has no such tensor.
    fn named(&self, key: &str) -> Option<Vec<(String, Part)>> {
        let own = key.strip_prefix(self.prefix).filter(|_| !kind::is_ignored(key))?;
        Some(match &self.names {
            Some(names) => names.diffusers(own),
            None => vec![(own.to_owned(), Part::Whole)],
        })
    }

    /// The shapes of the network's tensors, by diffusers' keys.
    fn shapes(&self, all: &Shapes) -> Shapes {
        let mut shapes = Shapes::new();
        for (key, shape) in all {
            let named = self.named(key).unwrap_or_default();
            shapes.extend(named.into_iter().map(|(name, part)| (name, part.shape(shape))));
        }
        self.network.rename(shapes).into_iter().map(|(name, (_, shape))| (name, shape)).collect()
    }
}

/// The shapes in a file's header, and the header.
fn read(path: &Path) -> Result<(Shapes, Header), ConfigError> {
    let header = header(path).map_err(|e| match e {
        WeightsError::File { path, problem } => ConfigError::File { path, problem },
        other => ConfigError::file(path, other.to_string()),
    })?;
    let shapes = header.tensors.iter().map(|(key, info, _)| (key.clone(), info.shape.clone())).collect();
    Ok((shapes, header))
}

/// The shapes below a prefix, without the prefix.
fn below(all: &Shapes, prefix: &str) -> Shapes {
    let own = all.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
    own.map(|(key, shape)| (key[prefix.len()..].to_owned(), shape.clone())).collect()
}

/// Checks that each tensor is one of a network, or known to be useless here.
fn check_known<'a>(
    path: &Path,
    all: &Shapes,
    slices: impl IntoIterator<Item = Option<&'a Slice>>,
) -> Result<(), ConfigError> {
    let slices: Vec<&Slice> = slices.into_iter().flatten().collect();
    let known =
        |key: &str| slices.iter().any(|slice| slice.named(key).is_some_and(|names| !names.is_empty()));
    let mut unknown = all.keys().filter(|key| !kind::is_ignored(key) && !known(key));
    let Some(first) = unknown.next() else { return Ok(()) };
    let count = 1 + unknown.count();
    let problem = format!(
        "{}: unknown tensor, expected those of SDXL's original layout ({count} such tensors in all)",
        crate::shorten(first)
    );
    Err(ConfigError::file(path, problem))
}

/// The configs in the metadata of a file that this program has written.
fn written_configs(path: &Path, header: &Header) -> Result<Value, ConfigError> {
    match header.metadata.get(CONFIGS) {
        Some(text) => Ok(Json::parse(path, text)?.value),
        None => Ok(Value::Null),
    }
}

/// SDXL's scheduler configuration.
fn scheduler() -> Value {
    json!({
        "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "rescale_betas_zero_snr": false, "steps_offset": 1, "timestep_spacing": "leading",
        "use_karras_sigmas": false
    })
}
