//! The trained weights of one request, ready to be merged into a model.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calotype_tensor::{DType, Tensor, ops};

use super::words::{self, Replaced, Words};
use super::{AdapterError, Modules, Patch, TrainedWeights, tokens};
use calotype_models::{Component, ModelConfigs, shorten};

/// The most new tokens of a request. Each is looked for in every prompt.
const MAX_NEW_TOKENS: usize = 10_000;

/// The text encoders in messages.
const ENCODERS: [&str; 2] = ["the first text encoder", "the second text encoder"];

/// The changes that all of a request's trained weights make.
#[derive(Default)]
pub struct Adapters {
    unet: Arc<Patch>,
    text: [Arc<Patch>; 2],
    /// New tokens' embeddings (tokens, width), for both text encoders.
    embeddings: Option<[Tensor; 2]>,
    /// The index of each new token in its own file.
    indices_in_file: Vec<usize>,
    /// For each text encoder, the new tokens that have an embedding for the other encoder only.
    absent: [Vec<usize>; 2],
    words: Words,
    /// The words of each file.
    files: Vec<FileWords>,
    /// Whether each file has changes that its scale multiplies.
    scaled: Vec<bool>,
}

/// A file's words, and the range of its new tokens.
struct FileWords {
    path: PathBuf,
    words: Vec<String>,
    new_tokens: Range<usize>,
}

/// The value of a word in one file, with a checksum of the file's embeddings.
type WordValue = (u32, String);

impl Adapters {
    /// Reads the files in their order and adds up their changes, each file's times its scale. Every change is that of the model's
    /// own weights (or a full fine-tune's), so that the order of the files does not matter. The new tokens of a later file are
    /// numbered after those of earlier files. A word that several files have stands for the values of all of them; the order of
    /// the values does not depend on the order of the files.
    ///
    /// # Errors
    /// A file cannot be read or does not fit the model, or two files have the same full tensor or the same
    /// encoder's embedding.
    pub fn load(
        files: &[PathBuf],
        scales: &[f64],
        modules: &Modules,
        configs: &ModelConfigs,
    ) -> Result<Self, AdapterError> {
        let (mut unet, mut text) = (Patch::default(), [Patch::default(), Patch::default()]);
        let (mut all, mut word_values) = (Self::default(), BTreeMap::new());
        let mut lone = BTreeMap::<String, [Option<Tensor>; 2]>::new();
        for (path, &scale) in files.iter().zip(scales) {
            let mut found = TrainedWeights::read_part(path, Some(modules))?;
            for (word, pair) in std::mem::take(&mut found.lone_embeddings) {
                let known = lone.entry(word.clone()).or_default();
                for (known, new) in known.iter_mut().zip(pair) {
                    if known.is_some() && new.is_some() {
                        return Err(AdapterError::key(path, &word, "an earlier file has this embedding too"));
                    }
                    *known = new.or(known.take());
                }
            }
            all.add_tokens(path, &found, configs, &mut word_values)?;
            all.scaled.push(found.has_scaled_changes());
            for (key, tensor) in found.unet {
                if let Some(key) = unet.insert(key, tensor) {
                    return Err(AdapterError::key(path, &key, "an earlier file's full fine-tune has it too"));
                }
            }
            // At scale 0, the file is left out, so that the picture equals the model's own to the last bit.
            if scale == 0.0 {
                continue;
            }
            unet.add_all(found.lora, found.changes, scale);
            for ((patch, lora), changes) in text.iter_mut().zip(found.text_lora).zip(found.text_changes) {
                patch.add_all(lora, changes, scale);
            }
        }
        if let (Some(path), false) = (files.last(), lone.is_empty()) {
            let lone_embeddings = all.without_counterparts(path, lone, configs);
            let mut joined = TrainedWeights { lone_embeddings, ..Default::default() };
            joined.join_embeddings(path)?;
            all.add_tokens(path, &joined, configs, &mut word_values)?;
        }
        let sorted = |(word, mut word_values): (String, Vec<WordValue>)| {
            word_values.sort();
            (word, word_values.into_iter().map(|(_, value)| value).collect())
        };
        let words = Words::new(&word_values.into_iter().map(sorted).collect());
        Ok(Self { unet: Arc::new(unet), text: text.map(Arc::new), words, ..all })
    }

    /// Embeddings that may lack one text encoder's table, with a table of zeros in its place. The tokens of such a table are left out
    /// of the prompts of that encoder, with a warning.
    fn without_counterparts(
        &mut self,
        path: &Path,
        mut lone: BTreeMap<String, [Option<Tensor>; 2]>,
        configs: &ModelConfigs,
    ) -> BTreeMap<String, [Option<Tensor>; 2]> {
        let first_width = configs.text_encoder.as_ref().map_or(0, |config| config.hidden_size);
        let widths = [first_width, configs.text_encoder_2.hidden_size];
        let mut next = self.new_tokens();
        for (word, pair) in &mut lone {
            let count = pair.iter().flatten().map(|table| table.dim(0)).next().unwrap_or(0);
            for (i, table) in pair.iter_mut().enumerate().filter(|(_, table)| table.is_none()) {
                let (path, word, there) = (path.display(), shorten(word), ENCODERS[1 - i]);
                tracing::warn!(
                    "{path}: {word}: an embedding for {there} alone; {} gets the prompt without it",
                    ENCODERS[i]
                );
                *table = Some(Tensor::zeros(&[count, widths[i]], DType::F32));
                self.absent[i].extend(next..next + count);
            }
            next += count;
        }
        lone
    }

    /// A prompt for a text encoder: without the new tokens that have no embedding for it.
    pub(crate) fn for_encoder(&self, component: Component, prompt: &str) -> String {
        let absent = &self.absent[usize::from(component == Component::TextEncoder2)];
        absent
            .iter()
            .fold(prompt.to_string(), |prompt, i| prompt.replace(&tokens::names(*i..*i + 1).concat(), ""))
    }

    /// Checks a file's embeddings against the text encoders, and appends them.
    fn add_tokens(
        &mut self,
        path: &Path,
        found: &TrainedWeights,
        configs: &ModelConfigs,
        word_values: &mut BTreeMap<String, Vec<WordValue>>,
    ) -> Result<(), AdapterError> {
        let (before, count) = (self.new_tokens(), found.new_tokens());
        let crc = embeddings_crc32(found);
        for (word, value) in &found.tokens {
            let value = tokens::shifted(value, count, before);
            word_values.entry(word.clone()).or_default().push((crc, value));
        }
        let words = found.tokens.keys().cloned().collect();
        self.files.push(FileWords { path: path.into(), words, new_tokens: before..before + count });
        let Some(embeddings) = &found.embeddings else { return Ok(()) };
        let Some(first) = &configs.text_encoder else {
            let problem = "the model has no first text encoder";
            return Err(AdapterError::unsuitable(path, "embeddings of new tokens", problem));
        };
        if before + count > MAX_NEW_TOKENS {
            let problem =
                format!("expected at most {MAX_NEW_TOKENS} new tokens in all, found {}", before + count);
            return Err(AdapterError::file(path, problem));
        }
        let widths = [first.hidden_size, configs.text_encoder_2.hidden_size];
        for ((tensor, width), name) in embeddings.iter().zip(widths).zip(ENCODERS) {
            if tensor.dim(1) != width {
                let (n, c) = (tensor.dim(0), tensor.dim(1));
                let problem = format!("expected ({n}, {width}), found ({n}, {c})");
                return Err(AdapterError::unsuitable(path, &format!("embeddings for {name}"), problem));
            }
        }
        self.indices_in_file.extend(0..count);
        self.embeddings = Some(match self.embeddings.take() {
            None => embeddings.clone(),
            Some([a, b]) => [ops::cat_batch(&[&a, &embeddings[0]]), ops::cat_batch(&[&b, &embeddings[1]])],
        });
        Ok(())
    }

    /// Whether file `i` has changes that its scale multiplies. Embeddings and a full fine-tune have none.
    pub(crate) fn is_scaled(&self, i: usize) -> bool {
        self.scaled.get(i).copied().unwrap_or(false)
    }

    fn new_tokens(&self) -> usize {
        self.embeddings.as_ref().map_or(0, |[first, _]| first.dim(0))
    }

    /// The changes in one network.
    pub fn patch(&self, component: Component) -> Arc<Patch> {
        match component {
            Component::UNet => self.unet.clone(),
            Component::TextEncoder => self.text[0].clone(),
            Component::TextEncoder2 => self.text[1].clone(),
            Component::Vae => Arc::default(),
        }
    }

    /// The names of the new tokens, in the order of their embeddings.
    pub(crate) fn token_names(&self) -> Vec<String> {
        tokens::names(0..self.new_tokens())
    }

    /// The new tokens' embeddings (tokens, width) for a text encoder.
    pub(crate) fn embeddings(&self, component: Component) -> Option<&Tensor> {
        let [first, second] = self.embeddings.as_ref()?;
        Some(if component == Component::TextEncoder { first } else { second })
    }

    /// The index of each new token in its own file, in the order of the embeddings.
    pub(crate) fn indices_in_file(&self) -> &[usize] {
        &self.indices_in_file
    }

    /// Replaces the trained words of prompts by the new tokens that they stand for. Warns about files none of whose words is in
    /// a prompt.
    pub(crate) fn prompts(&self, prompts: &[&str]) -> Vec<String> {
        let replaced: Vec<Replaced> = prompts.iter().map(|prompt| self.words.replace(prompt)).collect();
        for name in replaced.iter().flat_map(|replaced| words::unknown_embeddings(&replaced.prompt)) {
            tracing::warn!("embedding:{name} in the prompt: no file of replicate_weights has it");
        }
        for file in &self.files {
            let used = |word: &String| replaced.iter().any(|r| r.used.contains(word.trim()));
            let written = |token: &String| replaced.iter().any(|r| r.prompt.contains(token.as_str()));
            let mut names = file.words.clone();
            if names.is_empty() {
                names = tokens::names(file.new_tokens.clone());
            }
            if !names.is_empty()
                && !file.words.iter().any(used)
                && !tokens::names(file.new_tokens.clone()).iter().any(written)
            {
                let (path, names) = (file.path.display(), shorten(&names.join(", ")));
                tracing::warn!("{path}: what it has for {names} is not used: no prompt has this word");
            }
        }
        replaced.into_iter().map(|replaced| replaced.prompt).collect()
    }

    /// Prompts without the trained words and the new tokens, for a model that does not know them.
    pub(crate) fn prompts_without_tokens(&self, prompts: &[&str]) -> Vec<String> {
        let names = self.token_names();
        let without = |prompt: &&str| match names.is_empty() {
            true => (*prompt).to_owned(),
            false => {
                let replaced = self.words.replace(prompt).prompt;
                let text = names.iter().fold(replaced, |text, name| text.replace(name, " "));
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            }
        };
        prompts.iter().map(without).collect()
    }
}

/// A checksum of a file's embeddings. The values of a word are sorted by this checksum, so that the order of the files does not matter.
fn embeddings_crc32(found: &TrainedWeights) -> u32 {
    let mut crc = flate2::Crc::new();
    for table in found.embeddings.iter().flatten() {
        crc.update(bytemuck::cast_slice(table.f32s()));
    }
    crc.sum()
}
