//! The trained weights of one request, ready to be merged into a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_tensor::{Tensor, ops};

use super::{AdapterError, Modules, Patch, TrainedWeights, tokens};
use crate::config::{Component, ModelConfigs};

/// Everything that a request's trained weights change.
#[derive(Default)]
pub struct Adapters {
    unet: Arc<Patch>,
    text: [Arc<Patch>; 2],
    /// Rows (tokens, width) for both text encoders.
    embeddings: Option<[Tensor; 2]>,
    tokens: BTreeMap<String, String>,
}

impl Adapters {
    /// Reads the files in their order and adds them up: all LoRA times `scale`. Where several have new tokens, the later
    /// ones' are numbered on from the earlier ones', and a word that several have stands for all of theirs.
    ///
    /// # Errors
    /// A file cannot be read or does not fit the model, or two replace the same tensor.
    pub fn load(
        files: &[PathBuf],
        scale: f64,
        modules: &Modules,
        configs: &ModelConfigs,
    ) -> Result<Self, AdapterError> {
        let (mut unet, mut text) = (Patch::default(), [Patch::default(), Patch::default()]);
        let mut all = Self::default();
        for path in files {
            let found = TrainedWeights::read(path, Some(modules))?;
            all.add_tokens(path, &found, configs)?;
            for (key, tensor) in found.unet {
                if let Some(key) = unet.replace(key, tensor) {
                    return Err(AdapterError::key(path, &key, "an earlier file's full fine-tune has it too"));
                }
            }
            // At scale 0 the picture is the model's own, to the last bit.
            if scale == 0.0 {
                continue;
            }
            found.lora.into_iter().for_each(|(path, pair)| unet.add(&path, pair, scale));
            for (patch, lora) in text.iter_mut().zip(found.text_lora) {
                lora.into_iter().for_each(|(path, pair)| patch.add(&path, pair, scale));
            }
        }
        Ok(Self { unet: Arc::new(unet), text: text.map(Arc::new), ..all })
    }

    /// Checks a file's embeddings against the text encoders and puts them behind those that are there.
    fn add_tokens(
        &mut self,
        path: &Path,
        found: &TrainedWeights,
        configs: &ModelConfigs,
    ) -> Result<(), AdapterError> {
        let before = self.new_tokens();
        for (word, value) in &found.tokens {
            let value = tokens::shifted(value, found.new_tokens(), before);
            self.tokens.entry(word.clone()).or_default().push_str(&value);
        }
        let Some(embeddings) = &found.embeddings else { return Ok(()) };
        let Some(first) = &configs.text_encoder else {
            return Err(AdapterError::file(
                path,
                "embeddings of new tokens: the model has no first text encoder",
            ));
        };
        let names = ["the first text encoder", "the second text encoder"];
        let widths = [first.hidden_size, configs.text_encoder_2.hidden_size];
        for ((tensor, width), name) in embeddings.iter().zip(widths).zip(names) {
            if tensor.dim(1) != width {
                let (n, c) = (tensor.dim(0), tensor.dim(1));
                let problem = format!("embeddings for {name}: expected ({n}, {width}), found ({n}, {c})");
                return Err(AdapterError::file(path, problem));
            }
        }
        self.embeddings = Some(match self.embeddings.take() {
            None => embeddings.clone(),
            Some([a, b]) => [ops::cat_batch(&[&a, &embeddings[0]]), ops::cat_batch(&[&b, &embeddings[1]])],
        });
        Ok(())
    }

    fn new_tokens(&self) -> usize {
        self.embeddings.as_ref().map_or(0, |[first, _]| first.dim(0))
    }

    /// What changes in a network.
    pub(crate) fn patch(&self, component: Component) -> Arc<Patch> {
        match component {
            Component::UNet => self.unet.clone(),
            Component::TextEncoder => self.text[0].clone(),
            Component::TextEncoder2 => self.text[1].clone(),
            Component::Vae => Arc::default(),
        }
    }

    /// The new tokens' names, in the order of their rows.
    pub(crate) fn token_names(&self) -> Vec<String> {
        tokens::names(0..self.new_tokens())
    }

    /// The new tokens' rows for a text encoder.
    pub(crate) fn rows(&self, component: Component) -> Option<&Tensor> {
        let [first, second] = self.embeddings.as_ref()?;
        Some(if component == Component::TextEncoder { first } else { second })
    }

    /// A prompt with the trained words as the new tokens that they stand for.
    pub(crate) fn prompt(&self, prompt: &str) -> String {
        tokens::replaced(prompt, &self.tokens)
    }
}
