//! Reads trained weights of any layout. Every key is used, or is an error.

use std::collections::BTreeMap;
use std::path::Path;

use calotype_tensor::Tensor;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::embeddings::{both, embedding, embeddings, joined, lone, table};
use super::key::{self, LoraKey, Part};
use super::members::{EMBEDDINGS, LORA, Layout, Member, Members, PARAMS, PEFT, PEFT_CONFIG, UNET};
use super::parts::{Found, Layer, Parts};
use super::peft::PeftConfig;
use super::source::Source;
use super::stored::{Region, Stored};
use super::tokens::{MAX_PARAMS, MAX_VALUE, MAX_WORDS};
use super::values::{floats, scalar, shape_problem, sorted};
use super::{AdapterError, Modules, TrainedWeights, other_model, step, tokens};
use calotype_models::weights::{Header, element_type, tuple};
use calotype_models::{Component, shorten};

/// The state of reading one file.
struct Reader<'a> {
    path: &'a Path,
    modules: Option<&'a Modules>,
    /// The parts of each layer.
    lora: BTreeMap<(&'static str, String), (Component, Parts)>,
    /// The tables of both encoders, by name.
    embeddings: BTreeMap<String, [Option<Tensor>; 2]>,
}

impl TrainedWeights {
    /// Reads a tar, a folder (of a trained model, PEFT, diffusers, a run or its checkpoint), or a safetensors file in any
    /// layout.
    ///
    /// With a model's layers, names are looked up and shapes are checked. Without them, kohya's names are refused.
    ///
    /// # Errors
    /// A file or key cannot be used. The error names it, and what was expected and found.
    pub fn read(path: &Path, modules: Option<&Modules>) -> Result<Self, AdapterError> {
        let found = Self::read_part(path, modules)?;
        match found.lone_embeddings.first_key_value() {
            Some((word, pair)) => both(path, word, pair.clone()).map(|_| found),
            None => Ok(found),
        }
    }

    /// Reads a file like [`Self::read`], but the file may lack one text encoder's embedding, which another file then has.
    pub(super) fn read_part(path: &Path, modules: Option<&Modules>) -> Result<Self, AdapterError> {
        let mut found = Self::default();
        match Source::open(path)? {
            Source::Single(member) => found.read_single(&member, modules)?,
            Source::Several(Layout::Trained, members) => found.read_trained(members, modules)?,
            Source::Several(Layout::Checkpoint, members) => found = step::read(members, modules)?,
            Source::Several(Layout::Peft, members) => found.read_peft(path, members, modules)?,
            Source::Several(Layout::Diffusers | Layout::LearnedEmbeds, members) => {
                members.values().try_for_each(|member| found.read_single(member, modules))?;
            }
        }
        found.join_embeddings(path)?;
        match found.is_empty() {
            true => Err(AdapterError::file(path, "no LoRA, no embedding and no word in it: nothing to use")),
            false => Ok(found),
        }
    }

    /// Reads a `trained_model.tar`, or a folder with its files.
    fn read_trained(&mut self, mut members: Members, modules: Option<&Modules>) -> Result<(), AdapterError> {
        if let Some(member) = members.remove(LORA) {
            let bundled = self.read_lora(&member, modules, None)?;
            if let Some(name) = bundled.keys().next() {
                let problem = format!("expected embeddings in {EMBEDDINGS}, not here");
                return Err(AdapterError::key(&member.path, name, problem));
            }
        }
        if let Some(member) = members.remove(UNET) {
            self.unet = full(&member, modules)?;
        }
        if let Some(member) = members.remove(EMBEDDINGS) {
            self.embeddings = embeddings(&member)?;
        }
        if let Some(member) = members.remove(PARAMS) {
            self.tokens = params(&member, self.new_tokens())?;
        }
        Ok(())
    }

    /// Reads PEFT's folder.
    fn read_peft(
        &mut self,
        path: &Path,
        mut members: Members,
        modules: Option<&Modules>,
    ) -> Result<(), AdapterError> {
        let Some(weights) = members.remove(PEFT) else {
            return Err(AdapterError::file(path, format!("{PEFT_CONFIG} without {PEFT}")));
        };
        let config = members.remove(PEFT_CONFIG).map(|member| PeftConfig::file(&member)).transpose()?;
        match self.read_lora(&weights, modules, config)?.keys().next() {
            Some(key) => Err(AdapterError::key(&weights.path, key, "expected LoRA only")),
            None => Ok(()),
        }
    }

    /// Reads a LoRA, an embedding, or both; or the UNet's own tensors.
    fn read_single(&mut self, member: &Member, modules: Option<&Modules>) -> Result<(), AdapterError> {
        let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(&member.path, e))?;
        if let Some((word, encoder, table)) = lone(member, &header, modules)? {
            self.lone_embeddings.entry(word).or_default()[encoder] = Some(table);
            return Ok(());
        }
        let own = |(key, ..): &(String, TensorInfo, _)| {
            modules.is_some_and(|modules| modules.tensor(Component::UNet, key).is_some())
        };
        if !header.tensors.is_empty() && header.tensors.iter().all(own) {
            self.unet = full(member, modules)?;
            return Ok(());
        }
        let named = self.read_lora(member, modules, None)?;
        let stem = member.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // An embedding without a name has the name of its file.
        let named =
            named.into_iter().map(|(name, pair)| (if name.is_empty() { stem.clone() } else { name }, pair));
        let (whole, lone): (Vec<_>, Vec<_>) = named.partition(|(_, pair)| pair.iter().all(Option::is_some));
        self.lone_embeddings.extend(lone);
        self.add_embeddings(&member.path, whole.into_iter())
    }

    /// Appends embeddings. An embedding with the name of its own new token needs no word.
    fn add_embeddings(
        &mut self,
        path: &Path,
        named: impl Iterator<Item = (String, [Option<Tensor>; 2])>,
    ) -> Result<(), AdapterError> {
        let mut tables = match self.embeddings.take() {
            Some([first, second]) => [vec![first], vec![second]],
            None => [Vec::new(), Vec::new()],
        };
        let mut count: usize = tables[0].iter().map(|table| table.dim(0)).sum();
        for (name, pair) in named {
            let [first, second] = both(path, &name, pair)?;
            tokens::check(&name, first.dim(0)).map_err(|e| AdapterError::key(path, &name, e))?;
            let value = tokens::names(count..count + first.dim(0)).concat();
            count += first.dim(0);
            if name != value {
                self.tokens.insert(name, value);
            }
            tables[0].push(first);
            tables[1].push(second);
        }
        if count > 0 {
            self.embeddings = Some(joined(path, tables)?);
        }
        Ok(())
    }

    /// Joins embeddings whose tables for the two text encoders come from different files.
    pub(super) fn join_embeddings(&mut self, path: &Path) -> Result<(), AdapterError> {
        let whole = |pair: &[Option<Tensor>; 2]| pair.iter().all(Option::is_some);
        let all = std::mem::take(&mut self.lone_embeddings);
        let (pairs, lone) = all.into_iter().partition(|(_, pair)| whole(pair));
        let pairs: BTreeMap<_, _> = pairs;
        self.lone_embeddings = lone;
        self.add_embeddings(path, pairs.into_iter())
    }

    /// Reads the LoRA of a safetensors file. Returns the file's embeddings by name. If the file is for another model, the error
    /// says so.
    fn read_lora(
        &mut self,
        member: &Member,
        modules: Option<&Modules>,
        config: Option<PeftConfig>,
    ) -> Result<BTreeMap<String, [Option<Tensor>; 2]>, AdapterError> {
        let path = &member.path;
        let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(path, e))?;
        let tensors = header.tensors.iter().map(|(key, info, _)| (key.as_str(), info));
        let other = other_model::note(tensors);
        let peft = match config {
            Some(config) => config,
            None => PeftConfig::read(&header.metadata).map_err(|e| AdapterError::file(path, e))?,
        };
        self.take_lora(member, header, modules, &peft).map_err(|error| match &other {
            Some(note) => error.noted(note),
            None => error,
        })
    }

    fn take_lora(
        &mut self,
        member: &Member,
        header: Header,
        modules: Option<&Modules>,
        peft: &PeftConfig,
    ) -> Result<BTreeMap<String, [Option<Tensor>; 2]>, AdapterError> {
        let path = &member.path;
        let mut reader = Reader { path, modules, lora: BTreeMap::new(), embeddings: BTreeMap::new() };
        for (key, info, range) in sorted(header) {
            let bytes = member.bytes.get(range).unwrap_or_default();
            reader.take(&key, &info, bytes)?;
        }
        for ((_, path), (component, parts)) in std::mem::take(&mut reader.lora) {
            let layer = Layer { component, path: &path, modules, peft };
            let found = parts.found(&layer).map_err(|(key, problem)| reader.unsuitable(&key, problem))?;
            self.add_change(&layer, found);
        }
        Ok(reader.embeddings)
    }
}

impl TrainedWeights {
    /// Adds the changes of one layer.
    fn add_change(&mut self, layer: &Layer, found: Found) {
        let ([lora_1, lora_2], [changes_1, changes_2]) = (&mut self.text_lora, &mut self.text_changes);
        let (lora, changes) = match layer.component {
            Component::TextEncoder => (lora_1, changes_1),
            Component::TextEncoder2 => (lora_2, changes_2),
            _ => (&mut self.lora, &mut self.changes),
        };
        lora.extend(found.lora.map(|pair| (layer.path.to_owned(), pair)));
        changes.extend(found.weight.map(|change| (layer.key(), change)));
        changes.extend(found.bias.map(|change| (layer.bias(), change)));
    }
}

impl Reader<'_> {
    fn fail(&self, key: &str, problem: impl std::fmt::Display) -> AdapterError {
        AdapterError::key(self.path, key, problem)
    }

    fn unsuitable(&self, key: &str, problem: impl std::fmt::Display) -> AdapterError {
        AdapterError::unsuitable(self.path, key, problem)
    }

    /// Stores one tensor by its key.
    fn take(&mut self, key: &str, info: &TensorInfo, bytes: &[u8]) -> Result<(), AdapterError> {
        if let Some((name, encoder)) = embedding(key) {
            let tensor = floats(self.path, key, info, bytes)?;
            let table =
                table(&tensor).ok_or_else(|| self.fail(key, shape_problem("(tokens, channels)", &tensor)))?;
            self.embeddings.entry(name.into()).or_default()[encoder] = Some(table);
            return Ok(());
        }
        let LoraKey { component, path, part } =
            key::parse(key, self.modules).map_err(|why| self.unsuitable(key, why))?;
        let value = match part {
            Part::Alpha => Tensor::from_vec(vec![scalar(self.path, key, info, bytes)?], &[]),
            _ => floats(self.path, key, info, bytes)?,
        };
        let (_, parts) = self.lora.entry((component.name(), path)).or_insert((component, Parts::default()));
        match parts.insert(part, key, value) {
            Some(other) => Err(self.fail(key, format!("of the same layer as {other}"))),
            None => Ok(()),
        }
    }
}

/// Reads `special_params.json`, next to embeddings of `count` new tokens.
fn params(member: &Member, count: usize) -> Result<BTreeMap<String, String>, AdapterError> {
    let fail = |problem: String| AdapterError::file(&member.path, problem);
    if member.bytes.len() > MAX_PARAMS {
        return Err(fail(format!("expected at most {MAX_PARAMS} bytes, found {}", member.bytes.len())));
    }
    let value: Value =
        serde_json::from_slice(&member.bytes).map_err(|e| fail(format!("not valid JSON: {e}")))?;
    let Value::Object(entries) = value else { return Err(fail("expected a JSON object".into())) };
    if entries.len() > MAX_WORDS {
        return Err(fail(format!("expected at most {MAX_WORDS} words, found {}", entries.len())));
    }
    let text = |(key, value): (String, Value)| {
        let fail = |problem: String| Err(AdapterError::key(&member.path, &key, problem));
        match value {
            Value::String(text) if tokens::numbers(&text).iter().flatten().any(|&n| n >= count) => {
                let found = shorten(&text);
                fail(format!("expected text or new tokens of the {count} in {EMBEDDINGS}, found {found}"))
            }
            Value::String(text) if text.len() > MAX_VALUE => {
                fail(format!("expected at most {MAX_VALUE} bytes of text, found {}", text.len()))
            }
            Value::String(text) => match tokens::check(&key, 0) {
                Ok(()) => Ok((key, text)),
                Err(problem) => fail(problem),
            },
            other => fail(format!("expected text, found {}", shorten(&other.to_string()))),
        }
    };
    entries.into_iter().map(text).collect()
}

/// Reads `unet.safetensors`: the tensors of a full fine-tune, which stay mapped.
fn full(member: &Member, modules: Option<&Modules>) -> Result<BTreeMap<String, Stored>, AdapterError> {
    let path = &member.path;
    let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(path, e))?;
    let mut tensors = BTreeMap::new();
    for (key, info, range) in header.tensors {
        let fail = |problem: String| AdapterError::key(path, &key, problem);
        if let Some(modules) = modules {
            let unsuitable = |problem: String| Err(AdapterError::unsuitable(path, &key, problem));
            let Some(shape) = modules.tensor(Component::UNet, &key) else {
                return unsuitable("the model's unet has no such tensor".into());
            };
            if shape != info.shape {
                return unsuitable(format!("expected {}, found {}", tuple(shape), tuple(&info.shape)));
            }
        }
        let bytes: Option<Region> = member.bytes.part(range);
        let bytes = bytes.ok_or_else(|| fail("ends beyond the file".into()))?;
        let tensor = match element_type(info.dtype) {
            Some(dtype) => Stored::mapped(bytes, info.shape, dtype),
            None => floats(path, &key, &info, &bytes)?.into(),
        };
        tensors.insert(key, tensor);
    }
    Ok(tensors)
}
