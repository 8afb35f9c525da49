//! Which model: `--model`, `--config` and `--vae`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use calotype_models::{ModelPaths, wrong_kind};
use clap::Args;

use crate::failure::Failure;
use crate::{hub, pocket};

/// The options that say which model.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelArgs {
    /// An SDXL checkpoint: a folder in diffusers' layout, its name on a hub, or a single .safetensors file [default: pocket,
    /// which is built in]
    #[arg(long, value_name = "DIR|NAME|FILE", env = "CALOTYPE_MODEL", hide_env_values = true)]
    pub model: Option<PathBuf>,
    /// For a single file that is not of SDXL's own sizes: a folder in diffusers' layout, or its name on a hub, whose
    /// configs, tokenizers and scheduler go with the file's tensors
    #[arg(long, value_name = "DIR|NAME")]
    pub config: Option<PathBuf>,
    /// Another VAE than the model's: a folder in diffusers' layout, its name on a hub, or a single .safetensors file
    #[arg(long, value_name = "DIR|NAME|FILE")]
    pub vae: Option<PathBuf>,
}

impl ModelArgs {
    /// The paths of the model's files. What has a name on a hub is fetched.
    ///
    /// # Errors
    /// Nothing is there, or it is not a model.
    pub fn paths(&self, quiet: bool) -> Result<ModelPaths, Failure> {
        let model = model_folder(self.model.as_deref(), quiet)?;
        let paths = ModelPaths { model, ..self.others(quiet)? };
        if let (Some(config), true) = (&self.config, paths.model.is_dir()) {
            let problem = "is for a single file; a folder has configs of its own";
            return Err(Failure::BadInput(format!("--config {}: {problem}", config.display())));
        }
        Ok(paths)
    }

    /// The same, but of a model on a hub everything except the weights.
    ///
    /// # Errors
    /// As [`Self::paths`].
    pub fn configs(&self, quiet: bool) -> Result<ModelPaths, Failure> {
        match self
            .model
            .as_deref()
            .filter(|model| !model.exists() && model.to_str().is_some_and(hub::is_name))
        {
            Some(model) => {
                let model = other("--model", model, hub::Needed::Configs, quiet)?;
                Ok(ModelPaths { model, ..self.others(quiet)? })
            }
            None => self.paths(quiet),
        }
    }

    /// The paths of `--config` and `--vae` alone.
    ///
    /// # Errors
    /// As [`Self::paths`].
    pub fn others(&self, quiet: bool) -> Result<ModelPaths, Failure> {
        let found = |option: &str, given: &Option<PathBuf>, needed: hub::Needed| {
            given.as_deref().map(|given| other(option, given, needed, quiet)).transpose()
        };
        Ok(ModelPaths {
            config: found("--config", &self.config, hub::Needed::Configs)?,
            vae: found("--vae", &self.vae, hub::Needed::Vae)?,
            ..ModelPaths::default()
        })
    }
}

/// Finds the model: a folder, a file, or a model on a hub, which is fetched. Without `--model`, the model is the pocket model,
/// and the caller prints [`pocket::NOTICE`].
pub fn model_folder(model: Option<&Path>, quiet: bool) -> Result<PathBuf, Failure> {
    named("--model", model.unwrap_or(Path::new(pocket::NAME)), quiet)
}

/// Finds the model that the value of `option` names, as [`model_folder`] does.
pub fn named(option: &str, path: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    other(option, path, hub::Needed::Model, quiet)
}

/// A folder, a file, the pocket model, or what has this name on a hub.
fn other(option: &str, path: &Path, needed: hub::Needed, quiet: bool) -> Result<PathBuf, Failure> {
    // A folder named `pocket` is given as `./pocket`.
    if path.as_os_str() == pocket::NAME {
        return pocket::folder();
    }
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let bad = |what: &str| Failure::BadInput(format!("{option} {}: {what}", path.display()));
    if path.exists() {
        return match not_weights(path) {
            _ if needed == hub::Needed::Configs => {
                Err(bad("expected a folder in diffusers' layout, found a file"))
            }
            Some(problem) => Err(bad(&problem)),
            None => Ok(path.to_path_buf()),
        };
    }
    match path.to_str().filter(|text| hub::is_name(text)) {
        Some(name) => hub::folder(option, name, needed, quiet),
        None => Err(bad(
            "expected a folder, a .safetensors file, or OWNER/NAME of a model on the hub, found nothing there",
        )),
    }
}

/// Describes a file that is no safetensors file by its first bytes, and what to do. `None`: the file may be one.
fn not_weights(file: &Path) -> Option<String> {
    let expected = "expected a folder in diffusers' layout or a .safetensors file";
    if !file.is_file() {
        return Some(format!("{expected}, found a pipe or device")); // which would be waited for
    }
    let mut start = Vec::new();
    let _ = File::open(file).map(|file| file.take(512).read_to_end(&mut start));
    let ending = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match (ending.as_str(), wrong_kind(&start)?) {
        ("ckpt" | "pt" | "pth" | "bin", kind) if kind.contains("pickled") => Some(format!(
            "{expected}, found pickled weights, which may run any program: in Python, diffusers' \
             StableDiffusionXLPipeline.from_single_file({:?}).save_pretrained(\"FOLDER\") makes a folder of it",
            file.display().to_string()
        )),
        (_, kind) => Some(format!("{expected}, found {kind}")),
    }
}
