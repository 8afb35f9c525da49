//! Reading trained weights, whatever their layout. Every key is used, or an error.

use std::collections::BTreeMap;
use std::path::Path;

use calotype_tensor::Tensor;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::embeddings::{both, embedding, embeddings, joined, rows};
use super::key::{self, LoraKey, Part};
use super::peft::PeftConfig;
use super::source::{EMBEDDINGS, LORA, Member, PARAMS, Source, UNET};
use super::stored::{Region, Stored};
use super::values::{floats, scalar, shape_problem, sorted, squeezed};
use super::{AdapterError, LoraPair, Modules, TrainedWeights, tokens};
use crate::config::Component;
use crate::weights::{Header, element_type, tuple};

/// Special parameters are one short line.
const MAX_PARAMS: usize = 1 << 20;

/// A layer's parts, as they are found.
#[derive(Default)]
struct Parts {
    down: Option<(String, Tensor)>,
    up: Option<(String, Tensor)>,
    alpha: Option<(String, f32)>,
}

/// One file while it is being read.
struct Reader<'a> {
    path: &'a Path,
    modules: Option<&'a Modules>,
    lora: BTreeMap<(&'static str, String), (Component, Parts)>,
    /// By name, both encoders'.
    embeddings: BTreeMap<String, [Option<Tensor>; 2]>,
}

impl TrainedWeights {
    /// Reads a tar, a folder with a tar's files, or a safetensors file in any of the layouts.
    ///
    /// With a model's layers, names are looked up and shapes checked. Without, kohya's names are refused.
    ///
    /// # Errors
    /// Names the file and the key that cannot be used, with what was expected and found.
    pub fn read(path: &Path, modules: Option<&Modules>) -> Result<Self, AdapterError> {
        let mut found = Self::default();
        match Source::open(path)? {
            Source::Single(member) => found.read_single(&member, modules)?,
            Source::Trained(mut members) => {
                if let Some(member) = members.remove(LORA) {
                    let bundled = found.read_lora(&member, modules)?;
                    if let Some(name) = bundled.keys().next() {
                        let problem = format!("expected embeddings in {EMBEDDINGS}, not here");
                        return Err(AdapterError::key(&member.path, name, problem));
                    }
                }
                if let Some(member) = members.remove(UNET) {
                    found.unet = full(&member, modules)?;
                }
                if let Some(member) = members.remove(EMBEDDINGS) {
                    found.embeddings = embeddings(&member)?;
                }
                if let Some(member) = members.remove(PARAMS) {
                    found.tokens = params(&member, found.new_tokens())?;
                }
            }
        }
        Ok(found)
    }

    /// A LoRA, an embedding, or both.
    fn read_single(&mut self, member: &Member, modules: Option<&Modules>) -> Result<(), AdapterError> {
        let named = self.read_lora(member, modules)?;
        let stem = member.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (mut rows, mut count) = ([Vec::new(), Vec::new()], 0);
        for (name, pair) in named {
            let [first, second] = both(&member.path, &name, pair)?;
            let value = tokens::names(count..count + first.dim(0)).concat();
            count += first.dim(0);
            // Without a name of its own, an embedding is called by its file; `<s0>` stands for itself.
            let name = if name.is_empty() { stem.clone() } else { name };
            if name != value {
                self.tokens.insert(name, value);
            }
            rows[0].push(first);
            rows[1].push(second);
        }
        if count > 0 {
            self.embeddings = Some(joined(&member.path, rows)?);
        }
        Ok(())
    }

    /// The LoRA of a safetensors file; gives back its embeddings by name.
    fn read_lora(
        &mut self,
        member: &Member,
        modules: Option<&Modules>,
    ) -> Result<BTreeMap<String, [Option<Tensor>; 2]>, AdapterError> {
        let path = &member.path;
        let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(path, e))?;
        let peft = PeftConfig::read(&header.metadata).map_err(|e| AdapterError::file(path, e))?;
        let mut reader = Reader { path, modules, lora: BTreeMap::new(), embeddings: BTreeMap::new() };
        for (key, info, range) in sorted(header) {
            let bytes = member.bytes.get(range).unwrap_or_default();
            reader.take(&key, &info, bytes)?;
        }
        for ((_, layer), (component, parts)) in std::mem::take(&mut reader.lora) {
            let pair = reader.pair(component, &layer, parts, &peft)?;
            let [first, second] = &mut self.text_lora;
            match component {
                Component::TextEncoder => first.insert(layer, pair),
                Component::TextEncoder2 => second.insert(layer, pair),
                _ => self.lora.insert(layer, pair),
            };
        }
        Ok(reader.embeddings)
    }
}

impl Reader<'_> {
    fn fail(&self, key: &str, problem: impl std::fmt::Display) -> AdapterError {
        AdapterError::key(self.path, key, problem)
    }

    /// Puts one tensor where it belongs.
    fn take(&mut self, key: &str, info: &TensorInfo, bytes: &[u8]) -> Result<(), AdapterError> {
        if let Some((name, encoder)) = embedding(key) {
            let tensor = floats(self.path, key, info, bytes)?;
            let rows =
                rows(&tensor).ok_or_else(|| self.fail(key, shape_problem("(tokens, channels)", &tensor)))?;
            self.embeddings.entry(name.into()).or_default()[encoder] = Some(rows);
            return Ok(());
        }
        let LoraKey { component, path, part } =
            key::parse(key, self.modules).map_err(|why| self.fail(key, why))?;
        let value = match part {
            Part::Alpha => Err(scalar(self.path, key, info, bytes)?),
            _ => Ok(floats(self.path, key, info, bytes)?),
        };
        let entry = self.lora.entry((component.name(), path)).or_insert((component, Parts::default()));
        let earlier = match (value, part) {
            (Err(alpha), _) => entry.1.alpha.replace((key.into(), alpha)).map(|(key, _)| key),
            (Ok(tensor), Part::Up) => entry.1.up.replace((key.into(), tensor)).map(|(key, _)| key),
            (Ok(tensor), _) => entry.1.down.replace((key.into(), tensor)).map(|(key, _)| key),
        };
        match earlier {
            Some(other) => Err(self.fail(key, format!("of the same layer as {other}"))),
            None => Ok(()),
        }
    }

    /// A layer's LoRA from its parts, checked against each other and against the layer.
    fn pair(
        &self,
        component: Component,
        layer: &str,
        parts: Parts,
        peft: &PeftConfig,
    ) -> Result<LoraPair, AdapterError> {
        let ((down_key, down), (up_key, up)) = match (parts.down, parts.up, &parts.alpha) {
            (Some(down), Some(up), _) => (down, up),
            (Some((key, _)), None, _) => return Err(self.fail(&key, "without its up weight")),
            (None, Some((key, _)), _) => return Err(self.fail(&key, "without its down weight")),
            (None, None, alpha) => {
                let key = alpha.as_ref().map_or(layer, |(key, _)| key);
                return Err(self.fail(key, "without its down and up weights"));
            }
        };
        let rank = down.shape().first().copied().unwrap_or(0);
        let base = self.modules.and_then(|modules| modules.layer(component, layer));
        let linear = base.is_none_or(|shape| shape.len() == 2);
        let (down, up) = if linear { (squeezed(down), squeezed(up)) } else { (down, up) };
        if let Some(base) = base {
            self.check_shapes(base, (&down_key, &down), (&up_key, &up))?;
        }
        if rank == 0 || !matches!(down.shape().len(), 2 | 4) {
            return Err(self.fail(&down_key, shape_problem("(rank, in)", &down)));
        }
        if up.shape().get(1) != Some(&rank) || up.numel() != up.dim(0) * rank {
            return Err(self.fail(&up_key, shape_problem(&format!("(out, {rank}), as its down weight"), &up)));
        }
        let said = peft.alpha(component, layer, rank).map_err(|e| AdapterError::file(self.path, e))?;
        let alpha = parts.alpha.map(|(_, alpha)| alpha).or(said).unwrap_or(rank as f32);
        Ok(LoraPair { down, up, alpha })
    }

    fn check_shapes(
        &self,
        base: &[usize],
        (down_key, down): (&str, &Tensor),
        (up_key, up): (&str, &Tensor),
    ) -> Result<(), AdapterError> {
        let rank = down.shape().first().copied().unwrap_or(0);
        let with = |first: usize, rest: &[usize]| [&[first], rest].concat();
        let ones = vec![1; base.len() - 2];
        let (want_down, want_up) = (with(rank, &base[1..]), with(base[0], &with(rank, &ones)));
        // A 1×1 convolution is a linear layer, however its LoRA is written.
        let flat = base[2..].iter().all(|&k| k == 1);
        let same = |t: &Tensor, want: &[usize]| t.shape() == want || (flat && t.shape() == &want[..2]);
        for (key, tensor, want) in [(down_key, down, &want_down), (up_key, up, &want_up)] {
            if !same(tensor, want) {
                return Err(self.fail(key, shape_problem(&tuple(want), tensor)));
            }
        }
        Ok(())
    }
}

/// `special_params.json`, beside embeddings of `count` new tokens.
fn params(member: &Member, count: usize) -> Result<BTreeMap<String, String>, AdapterError> {
    let fail = |problem: String| AdapterError::file(&member.path, problem);
    if member.bytes.len() > MAX_PARAMS {
        return Err(fail(format!("expected at most {MAX_PARAMS} bytes, found {}", member.bytes.len())));
    }
    let value: Value =
        serde_json::from_slice(&member.bytes).map_err(|e| fail(format!("not valid JSON: {e}")))?;
    let Value::Object(entries) = value else { return Err(fail("expected a JSON object".into())) };
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) if tokens::numbers(&text).iter().flatten().any(|&n| n >= count) => {
            let problem = format!("expected text or new tokens of the {count} in {EMBEDDINGS}, found {text}");
            Err(AdapterError::key(&member.path, &key, problem))
        }
        Value::String(text) if !key.is_empty() => Ok((key, text)),
        other => Err(AdapterError::key(&member.path, &key, format!("expected text, found {other}"))),
    };
    entries.into_iter().map(text).collect()
}

/// `unet.safetensors`: a full fine-tune's tensors, left in the file.
fn full(member: &Member, modules: Option<&Modules>) -> Result<BTreeMap<String, Stored>, AdapterError> {
    let path = &member.path;
    let header = Header::read(&member.bytes).map_err(|e| AdapterError::file(path, e))?;
    let mut tensors = BTreeMap::new();
    for (key, info, range) in header.tensors {
        let fail = |problem: String| AdapterError::key(path, &key, problem);
        let Some(dtype) = element_type(info.dtype) else {
            return Err(fail(format!("expected f32, f16 or bf16, found {:?}", info.dtype)));
        };
        if let Some(modules) = modules {
            let Some(shape) = modules.tensor(Component::UNet, &key) else {
                return Err(fail("the model's unet has no such tensor".into()));
            };
            if shape != info.shape {
                return Err(fail(format!("expected {}, found {}", tuple(shape), tuple(&info.shape))));
            }
        }
        let bytes: Option<Region> = member.bytes.part(range);
        let bytes = bytes.ok_or_else(|| fail("ends beyond the file".into()))?;
        tensors.insert(key, Stored::mapped(bytes, info.shape, dtype));
    }
    Ok(tensors)
}
