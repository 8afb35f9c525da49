//! Loads modules from safetensors files, or PyTorch's, by checkpoint key. The files are memory-mapped, shapes are checked against the
//! config's, and values are converted straight from the mapped bytes.

mod element;
mod error;
mod files;
pub mod float8;
mod found;
mod hook;
mod network;
mod part;
mod pickle;
mod shared;
mod torch_file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use calotype_tensor::{DType, Device, Tensor, Weight, WeightBytes};

use crate::message::shorten;
use crate::parameter::Parameter;
use element::{element_bytes, gathered};
pub use element::{element_type, to_f32};
pub use error::{WeightsError, tuple};
use files::{Files, Located, MappedFile};
pub use files::{Header, header};
use found::{Content, Found, Held, MappedTensor};
pub use hook::{Replacement, TensorHook};
pub use network::Network;
pub use part::Part;
pub use shared::SharedWeights;

/// The number of samples of a file's bytes that tell the file from others ([`Weights::fingerprint`]), and the bytes of each
/// sample.
const SAMPLES: usize = 64;
const SAMPLE_BYTES: usize = 4096;

/// The tensors of a component below a key prefix. A clone is cheap, and shares the record of tensors that have been taken.
#[derive(Clone)]
pub struct Weights {
    all: Arc<Checkpoint>,
    prefix: String,
    hook: Option<Arc<dyn TensorHook>>,
    shared: Option<SharedWeights>,
    device: Device,
    packing: Packing,
}

/// Whether the weights of linear layers are packed, at first use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// But for parts that run once.
    Default,
    /// Not: products read them from the file.
    Never,
    /// Those of parts that run once too.
    Always,
}

struct Checkpoint {
    name: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
    network: Network,
    store: Option<DType>,
}

struct Entry {
    /// The key in the file, for errors.
    key: String,
    shape: Vec<usize>,
    at: Located,
    taken: AtomicBool,
}

impl Weights {
    /// Opens the files in `dir`: single or sharded, plain or a variant such as `fp16`.
    ///
    /// Files of `variant` come first, then plain files, then `fp16` and `bf16`. Matrices are packed in the dtype `store`;
    /// `None` keeps the file's dtype.
    ///
    /// # Errors
    /// No such file exists, or a file is truncated or in neither format.
    pub fn open(
        dir: &Path,
        network: Network,
        variant: Option<&str>,
        store: Option<DType>,
    ) -> Result<Self, WeightsError> {
        let found = files::open(dir, network.stem(), variant)?;
        let tensors = network.rename(found.tensors);
        Ok(Self::new(found.name, found.files, tensors, network, store))
    }

    /// Opens a file of a network's weights, safetensors or PyTorch's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_file(path: &Path, network: Network, store: Option<DType>) -> Result<Self, WeightsError> {
        let found = files::open_file(path)?;
        let tensors = network.rename(found.tensors);
        Ok(Self::new(found.name, found.files, tensors, network, store))
    }

    /// The error about a tensor that is missing. `expected`: what it should be.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> WeightsError {
        WeightsError::Missing { file: self.all.name.clone(), key: self.key(key), expected: expected.into() }
    }

    /// The error about a tensor with another shape.
    pub(crate) fn mismatch(&self, key: &str, expected: String, found: String) -> WeightsError {
        WeightsError::Mismatch { file: self.all.name.clone(), key: self.key(key), expected, found }
    }

    /// The error about a file as a whole.
    pub(crate) fn unsuitable(&self, problem: String) -> WeightsError {
        WeightsError::file(&self.all.name, problem)
    }

    /// Opens the tensors of one network in a file, or a folder, that has others too, or has them under other keys. `named` gives the keys that a key's tensor has in the
    /// network, and how each lies in that tensor; `None`: the tensor is not the network's.
    ///
    /// # Errors
    /// The file is truncated or in neither format, or two of its tensors are the same one.
    pub(crate) fn of_slice(
        path: &Path,
        network: Network,
        store: Option<DType>,
        named: impl Fn(&str) -> Option<Vec<(String, Part)>>,
    ) -> Result<Self, WeightsError> {
        let opened =
            if path.is_dir() { files::open(path, network.stem(), None) } else { files::open_file(path) };
        let Files { name, files, tensors } = opened?;
        let mut parts = BTreeMap::new();
        for (key, at) in tensors {
            for (name, part) in named(&key).unwrap_or_default() {
                let at = at.part(part).map_err(|found| WeightsError::Mismatch {
                    file: path.to_path_buf(),
                    key: shorten(&key),
                    expected: "a matrix or bias of query, key and value, or a projection's matrix".into(),
                    found,
                })?;
                if let Some((other, _)) = parts.insert(name, (key.clone(), at)) {
                    let problem = format!("{} and {} are the same tensor", shorten(&other), shorten(&key));
                    return Err(WeightsError::file(path, problem));
                }
            }
        }
        let renamed = network.rename(parts).into_iter();
        let tensors = renamed.map(|(name, (_, entry))| (name, entry)).collect();
        Ok(Self::new(name, files, tensors, network, store))
    }

    /// Tensors by the network's keys, each with its key in the file and its place.
    fn new(
        name: PathBuf,
        files: Vec<MappedFile>,
        tensors: BTreeMap<String, (String, Located)>,
        network: Network,
        store: Option<DType>,
    ) -> Self {
        let entry = |(name, (key, at)): (String, (String, Located))| {
            let shape = network.reshape(&name, &at.shape);
            (name, Entry { key, shape, at, taken: AtomicBool::new(false) })
        };
        let tensors = tensors.into_iter().map(entry).collect();
        Self::of(Checkpoint { name, files, tensors, network, store })
    }

    /// Weights without files, on [`Device::Meta`]: each tensor is there, in the shape that the network asks for. Matrices count
    /// as packed in the dtype `store`.
    pub fn meta(network: Network, store: DType) -> Self {
        let (name, files, tensors, store) = (PathBuf::new(), Vec::new(), BTreeMap::new(), Some(store));
        Self::of(Checkpoint { name, files, tensors, network, store }).on(Device::Meta)
    }

    fn of(all: Checkpoint) -> Self {
        Self {
            all: Arc::new(all),
            prefix: String::new(),
            hook: None,
            shared: None,
            device: Device::Cpu,
            packing: Packing::Default,
        }
    }

    /// The same tensors. `hook` may change each of them when it is taken.
    pub fn with_hook(self, hook: Arc<dyn TensorHook>) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// The same tensors. The weights of layers that the hook does not change are those of `shared`, where they are there, and are added to it
    /// where they are not. All networks with the same `shared` are loaded from these files, onto one device.
    pub fn with_shared(self, shared: SharedWeights) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// The same tensors, to be loaded onto this device (without this, the CPU). For [`Device::Meta`], only the headers of the
    /// files are read.
    pub fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// The key and shape of every tensor below the prefix.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.below().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// A CRC-32 that tells files apart without reading them whole: of their lengths, and of samples of their bytes.
    pub fn fingerprint(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        for file in &self.all.files {
            crc.update(&file.map.len().to_le_bytes());
            let last = file.map.len().saturating_sub(SAMPLE_BYTES);
            for sample in 0..SAMPLES {
                let start = last * sample / (SAMPLES - 1);
                crc.update(&file.map[start..file.map.len().min(start + SAMPLE_BYTES)]);
            }
        }
        crc.sum()
    }

    /// The bytes of memory that the tensors with these keys take when they are packed.
    pub fn packed_bytes(&self, of: impl Fn(&str) -> bool) -> u64 {
        let bytes = |entry: &Entry| match self.all.store {
            Some(dtype) => entry.shape.iter().product::<usize>() * dtype.size(),
            None if float8::reader(entry.at.dtype).is_some() => 2 * entry.shape.iter().product::<usize>(),
            None => entry.shape.iter().product::<usize>() * element_bytes(entry.at.dtype),
        };
        self.below().filter(|(key, _)| of(key)).map(|(_, entry)| bytes(entry) as u64).sum()
    }

    /// For a network that runs once or twice: its linear layers are not packed, because packing takes longer than it saves.
    pub fn used_once(self) -> Self {
        let packing = if self.packing == Packing::Always { Packing::Always } else { Packing::Never };
        Self { packing, ..self }
    }

    /// For a network that runs in every step of a training: all matrices are packed, even those of parts that inference uses
    /// once.
    pub fn always_packed(self) -> Self {
        Self { packing: Packing::Always, ..self }
    }

    /// The tensors below `name`, as in `w.sub("down_blocks").sub(0)`.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.all.tensors.contains_key(&self.key(name))
    }

    /// Takes a tensor of exactly this shape, as f32.
    ///
    /// # Errors
    /// The tensor is missing, or has another shape or an unsupported element type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        if self.device == Device::Meta {
            self.check(name, shape)?;
            return Ok(Tensor::meta(shape, DType::F32));
        }
        Ok(self.take(name, shape)?.tensor(shape, self.device))
    }

    /// Takes the `weight` and `bias` of a norm, both (channels), as f32.
    pub fn norm(&self, name: &str, channels: usize) -> Result<(Parameter, Parameter), WeightsError> {
        let norm = self.sub(name);
        let parameter = |name: &str| Ok(Parameter::fixed(norm.tensor(name, &[channels])?));
        Ok((parameter("weight")?, parameter("bias")?))
    }

    /// Takes a linear layer: `weight` (out, in), packed at first use, and with `bias` also its `bias` (out), f32.
    pub fn linear(
        &self,
        name: &str,
        out: usize,
        inp: usize,
        bias: bool,
    ) -> Result<(Parameter<Weight>, Option<Parameter>), WeightsError> {
        let layer = self.sub(name);
        let weight = layer.weight(&[out, inp], self.packing == Packing::Never)?;
        let bias = bias.then(|| layer.tensor("bias", &[out])).transpose()?;
        Ok((weight, bias.map(Parameter::fixed)))
    }

    /// Takes a convolution: `weight` (out, in, kernel, kernel), packed at first use, and `bias` (out), f32.
    pub fn conv(
        &self,
        name: &str,
        out: usize,
        inp: usize,
        kernel: usize,
    ) -> Result<(Parameter<Weight>, Parameter), WeightsError> {
        let layer = self.sub(name);
        let weight = layer.weight(&[out, inp, kernel, kernel], false)?;
        Ok((weight, Parameter::fixed(layer.tensor("bias", &[out])?)))
    }

    /// Takes the `weight` (out, in, kernel, kernel) of a convolution without bias, packed at first use.
    pub fn conv_weight(
        &self,
        name: &str,
        out: usize,
        inp: usize,
        kernel: usize,
    ) -> Result<Parameter<Weight>, WeightsError> {
        self.sub(name).weight(&[out, inp, kernel, kernel], false)
    }

    /// Marks all tensors below this prefix as taken, because this part of the checkpoint is not needed.
    pub fn skip(&self) {
        for (_, entry) in self.below() {
            entry.taken.store(true, Ordering::Relaxed);
        }
    }

    /// Marks a tensor, if there is one, as taken, because it is not needed.
    pub fn skip_tensor(&self, name: &str) {
        if let Some(entry) = self.all.tensors.get(&self.key(name)) {
            entry.taken.store(true, Ordering::Relaxed);
        }
    }

    /// Whether no file has changed since it was opened. (Another file may have taken its place.)
    pub fn are_unchanged(&self) -> bool {
        self.changed().is_none()
    }

    fn changed(&self) -> Option<&MappedFile> {
        self.all.files.iter().find(|file| !file.map.is_unchanged())
    }

    /// Checks that all tensors below this prefix have been taken, and that no file has changed since it was opened.
    ///
    /// # Errors
    /// Tensors were never taken, or a file has changed. The error names the first such tensors, or the file.
    pub fn finish(&self) -> Result<(), WeightsError> {
        if let Some(changed) = self.changed() {
            return Err(WeightsError::file(&changed.path, "changed while it was read"));
        }
        let left = self.below().filter(|(_, entry)| !entry.taken.load(Ordering::Relaxed));
        let (ignored, left): (Vec<_>, Vec<_>) = left.partition(|(name, _)| self.all.network.ignores(name));
        let left: Vec<&Entry> = left.into_iter().map(|(_, entry)| entry).collect();
        if let Some((name, _)) = ignored.first() {
            let (file, count) = (self.all.name.display(), ignored.len());
            tracing::info!("{file}: {name}: not used ({count} such tensors in all)");
        }
        let Some(first) = left.first() else { return Ok(()) };
        let keys: Vec<&str> = left.iter().take(3).map(|entry| entry.key.as_str()).collect();
        Err(WeightsError::Surplus {
            file: self.all.files[first.at.file].path.clone(),
            first: shorten(&keys.join(", ")),
            count: left.len(),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn below(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let from = self.all.tensors.range(self.prefix.clone()..);
        from.take_while(|(name, _)| name.starts_with(&self.prefix))
    }

    /// Checks one tensor, and marks it as taken: its dtype. Without files, each tensor is f32.
    fn check(&self, name: &str, shape: &[usize]) -> Result<DType, WeightsError> {
        if self.all.files.is_empty() { Ok(DType::F32) } else { Ok(self.entry(name, shape)?.1) }
    }

    /// Checks one tensor, and marks it as taken: the entry, and the dtype.
    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, DType), WeightsError> {
        let key = self.key(name);
        let Some(entry) = self.all.tensors.get(&key) else {
            return Err(WeightsError::Missing { file: self.all.name.clone(), key, expected: tuple(shape) });
        };
        let file = &self.all.files[entry.at.file];
        let mismatch = |expected: String, found: String| WeightsError::Mismatch {
            file: file.path.clone(),
            key: shorten(&entry.key),
            expected,
            found,
        };
        if entry.shape != shape {
            return Err(mismatch(tuple(shape), tuple(&entry.shape)));
        }
        let widened = float8::reader(entry.at.dtype).map(|_| DType::F16);
        let Some(dtype) = element_type(entry.at.dtype).or(widened) else {
            let expected = "f32, f16, bf16, f8_e4m3 or f8_e5m2".into();
            return Err(mismatch(expected, format!("{:?}", entry.at.dtype)));
        };
        entry.taken.store(true, Ordering::Relaxed);
        Ok((entry, dtype))
    }

    /// Checks one tensor, marks it as taken, and finds its elements.
    fn take(&self, name: &str, shape: &[usize]) -> Result<Found, WeightsError> {
        let (entry, dtype) = self.entry(name, shape)?;
        let mapped =
            MappedTensor { all: self.all.clone(), file: entry.at.file, range: entry.at.bytes.clone() };
        let Located { dtype: stored, shape: whole, strides, .. } = &entry.at;
        let gather = |strides: &Vec<usize>| gathered(mapped.bytes(), element_bytes(*stored), whole, strides);
        let mut converted = strides.as_ref().map(gather);
        if let Some(read) = float8::reader(*stored) {
            converted = Some(float8::widen(converted.as_deref().unwrap_or(mapped.bytes()), read));
        }
        let converted = converted.map(Held);
        let stored: &dyn WeightBytes = converted.as_ref().map_or(&mapped, |held| held);
        let hook = self.hook.as_ref();
        Ok(match hook.and_then(|hook| hook.replace(&self.key(name), stored, dtype)) {
            Some(Replacement::Stored(bytes, dtype)) => Found { dtype, content: Content::Stored(bytes) },
            Some(Replacement::Values(values)) => {
                Found { dtype: DType::F32, content: Content::Values(values) }
            }
            None => match converted {
                Some(held) => Found { dtype, content: Content::Converted(held) },
                None => Found { dtype, content: Content::Stored(Box::new(mapped)) },
            },
        })
    }

    /// Takes a layer's `weight`, from those that are shared if there are some. With `streamed`, products may read it from its file each time.
    fn weight(&self, shape: &[usize], streamed: bool) -> Result<Parameter<Weight>, WeightsError> {
        let key = self.key("weight");
        let Some(shared) = self.shared.as_ref().filter(|_| !self.is_changed(&key)) else {
            return self.own_weight(shape, streamed);
        };
        if let Some(weight) = shared.get(&key) {
            self.check("weight", shape)?;
            return Ok(weight);
        }
        let weight = self.own_weight(shape, streamed)?;
        let bytes = self.packed_bytes(|known| known == key);
        Ok(shared.add(key, weight, bytes))
    }

    /// Whether the hook changes a tensor.
    fn is_changed(&self, key: &str) -> bool {
        self.hook.as_ref().is_some_and(|hook| hook.changes(key))
    }

    /// Takes a layer's `weight` for one network alone.
    fn own_weight(&self, shape: &[usize], streamed: bool) -> Result<Parameter<Weight>, WeightsError> {
        let &[out, inp, ref kernel @ ..] = shape else { panic!("a weight is (out, in, ..), not {shape:?}") };
        let all = [out, inp, kernel.first().copied().unwrap_or(1), kernel.last().copied().unwrap_or(1)];
        if self.device == Device::Meta {
            let dtype = self.check("weight", shape)?;
            return Ok(Parameter::fixed(Weight::meta(all, self.all.store.unwrap_or(dtype))));
        }
        let found = self.take("weight", shape)?;
        let dtype = found.dtype;
        let store = self.all.store.unwrap_or(dtype);
        Ok(Parameter::fixed(match found.content {
            // Packed at once: the unpacked values would stay in memory until the first use, and beyond.
            Content::Values(values) => {
                Weight::new(bytemuck::cast_slice(&values), dtype, all, store, self.device)
            }
            Content::Converted(Held(bytes)) => Weight::new(&bytes, dtype, all, store, self.device),
            Content::Stored(bytes) if streamed && store == dtype => {
                Weight::streamed(bytes, dtype, [out, inp], self.device)
            }
            Content::Stored(bytes) => Weight::lazy(bytes, dtype, all, store, self.device),
        }))
    }
}

/// The dtype in which [`Weights::open`] packs matrices for a network that computes in `dtype`: bf16 for bf16, and `None`, the dtype of
/// the file, for f32.
pub fn store_for(dtype: DType) -> Option<DType> {
    (dtype == DType::BF16).then_some(DType::BF16)
}
