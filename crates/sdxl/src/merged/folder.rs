//! The small files of a folder in diffusers' layout: configs, the scheduler's configuration, tokenizers.

use std::path::Path;

use calotype_models::tokenizer::carried_files;
use calotype_models::{Component, ConfigError};
use serde_json::{Value, json};

use super::Merged;
use crate::Error;

/// A file of a folder: its path in the folder, and its bytes.
pub type SmallFile = (String, Vec<u8>);

impl Merged {
    /// The networks, and the path of each one's weights in the folder.
    pub fn networks(&self) -> Vec<(Component, String)> {
        let stem = |component| match component {
            Component::TextEncoder | Component::TextEncoder2 => "model",
            Component::UNet | Component::Vae => "diffusion_pytorch_model",
        };
        self.components().map(|c| (c, format!("{}/{}.safetensors", c.name(), stem(c)))).collect()
    }

    /// Every file of the folder that is no file of weights.
    ///
    /// # Errors
    /// A file of the model cannot be read.
    pub fn small_files(&self) -> Result<Vec<SmallFile>, Error> {
        let mut files = vec![
            ("model_index.json".to_owned(), pretty(&self.index())),
            ("scheduler/scheduler_config.json".to_owned(), pretty(&self.scheduler()?)),
        ];
        for component in self.components() {
            let config = self.folder.config_json(component)?;
            files.push((format!("{}/config.json", component.name()), pretty(&config)));
            if matches!(component, Component::TextEncoder | Component::TextEncoder2) {
                files.extend(self.tokenizer(component)?);
            }
        }
        files.sort();
        Ok(files)
    }

    /// The scheduler's configuration.
    pub(super) fn scheduler(&self) -> Result<Value, Error> {
        let path = self.folder.scheduler_config_path();
        let text = match self.folder.scheduler_config() {
            Some(text) => text.to_owned(),
            None => calotype_models::read_text(&path, MAX_BYTES)?,
        };
        let bad = |problem: String| Error::from(ConfigError::File { path, problem });
        serde_json::from_str(&text).map_err(|e| bad(format!("not valid JSON: {e}")))
    }

    fn index(&self) -> Value {
        let class = match (self.folder.has_text_encoder, self.configs.unet.in_channels) {
            (false, _) => "StableDiffusionXLImg2ImgPipeline",
            (true, 9) => "StableDiffusionXLInpaintPipeline",
            (true, _) => "StableDiffusionXLPipeline",
        };
        let scheduler =
            self.scheduler().ok().and_then(|config| config["_class_name"].as_str().map(String::from));
        let scheduler = self.folder.scheduler_class.clone().or(scheduler);
        let first = |class: &str| match self.folder.has_text_encoder {
            true => json!(["transformers", class]),
            false => json!([null, null]),
        };
        let mut index = json!({
            "_class_name": class,
            "force_zeros_for_empty_prompt": self.folder.force_zeros_for_empty_prompt,
            "scheduler": ["diffusers", scheduler.unwrap_or_else(|| "EulerDiscreteScheduler".into())],
            "text_encoder": first("CLIPTextModel"), "tokenizer": first("CLIPTokenizer"),
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        });
        if class != "StableDiffusionXLPipeline" {
            index["requires_aesthetics_score"] = json!(self.folder.requires_aesthetics_score);
        }
        index
    }

    /// The files of an encoder's tokenizer: the model's own, or those that this program carries.
    fn tokenizer(&self, encoder: Component) -> Result<Vec<SmallFile>, Error> {
        let name = encoder.tokenizer();
        let Some(folder) = self.folder.folder() else {
            let carried = carried_files(encoder.padding()).into_iter();
            return Ok(carried.map(|(file, text)| (format!("{name}/{file}"), text.into_bytes())).collect());
        };
        let dir = folder.join(name);
        let mut files = Vec::new();
        for file in TOKENIZER {
            let path = dir.join(file);
            if path.is_file() {
                files.push((format!("{name}/{file}"), bytes(&path)?));
            }
        }
        Ok(files)
    }
}

/// The files that a tokenizer's folder may have.
const TOKENIZER: [&str; 6] = [
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];
/// The largest small file, in bytes.
const MAX_BYTES: u64 = 64 << 20;

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    Ok(calotype_models::read_text(path, MAX_BYTES)?.into_bytes())
}

/// JSON with a field on each line, in the order of the names.
fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}
