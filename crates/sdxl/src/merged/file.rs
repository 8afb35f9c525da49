//! A safetensors file of a model's tensors, which are read while the file is written.

use std::collections::BTreeMap;
use std::io::{self, Write};

use calotype_models::single::{CONFIGS, Kind, Names, TEXT, UNET, VAE};
use calotype_models::weights::{Part, Weights};
use calotype_models::{Component, ConfigError};
use calotype_tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::{Merged, is_used};
use crate::Error;
use crate::adapters::safetensors_header;
use crate::channels_last::transposed;

/// A file whose tensors are read while it is written. The same model gives the same bytes.
pub struct TensorFile {
    metadata: BTreeMap<String, String>,
    /// In the order of the keys.
    tensors: BTreeMap<String, Entry>,
    dtype: DType,
}

/// A tensor of a file, and the tensors of a network that make it.
pub struct Entry {
    shape: Vec<usize>,
    weights: Option<Weights>,
    /// Key and shape of each tensor; their elements follow each other.
    parts: Vec<(String, Vec<usize>)>,
    transposed: bool,
}

impl Merged {
    /// The tensors of one network, by the keys of diffusers.
    ///
    /// # Errors
    /// The network's weights are missing or invalid.
    pub fn network(&self, component: Component) -> Result<TensorFile, Error> {
        let weights = self.weights(component)?;
        let whole = |(key, shape): (&str, &[usize])| {
            let parts = vec![(key.to_owned(), shape.to_vec())];
            let entry =
                Entry { shape: shape.to_vec(), weights: Some(weights.clone()), parts, transposed: false };
            (key.to_owned(), entry)
        };
        let tensors = weights.shapes().filter(|(key, _)| is_used(component, key)).map(whole).collect();
        let metadata = BTreeMap::from([("format".into(), "pt".into())]);
        Ok(TensorFile { metadata, tensors, dtype: self.dtype })
    }

    /// The whole model in Stability's original layout. The metadata keep the configs, some of whose numbers no shape tells.
    ///
    /// # Errors
    /// A network's weights are missing or invalid, or have a tensor without a name in this layout.
    pub fn single_file(&self) -> Result<TensorFile, Error> {
        let kind = if self.folder.has_text_encoder { Kind::Base } else { Kind::Refiner };
        let mut tensors = BTreeMap::new();
        let mut configs = Map::new();
        for component in self.components() {
            let (prefix, names) = match component {
                Component::TextEncoder => (TEXT, None),
                Component::TextEncoder2 => {
                    (kind.text_2(), Some(Names::open_clip(self.configs.text_encoder_2.num_hidden_layers)))
                }
                Component::UNet => (UNET, Some(Names::of_unet(&self.configs.unet))),
                Component::Vae => (VAE, Some(Names::of_vae(&self.configs.vae))),
            };
            let weights = self.weights(component)?;
            for (key, shape) in weights.shapes().filter(|(key, _)| is_used(component, key)) {
                let named =
                    names.as_ref().map_or(Some((key.to_owned(), Part::Whole)), |names| names.original(key));
                let Some((name, part)) = named else {
                    let problem =
                        format!("{key}: expected a tensor of SDXL's original layout, found another one");
                    return Err(ConfigError::File { path: self.folder.path().to_path_buf(), problem }.into());
                };
                add(
                    tensors.entry(format!("{prefix}{name}")).or_insert_with(|| Entry::new(&weights)),
                    key,
                    shape,
                    part,
                );
            }
            configs.insert(component.name().into(), self.folder.config_json(component)?);
        }
        let scheduler = self.scheduler()?;
        for marker in markers(&scheduler) {
            tensors.insert(
                marker.into(),
                Entry { shape: vec![0], weights: None, parts: Vec::new(), transposed: false },
            );
        }
        let metadata = self.metadata(configs, scheduler);
        Ok(TensorFile { metadata, tensors, dtype: self.dtype })
    }

    fn metadata(&self, mut configs: Map<String, Value>, scheduler: Value) -> BTreeMap<String, String> {
        let architecture = match self.folder.has_text_encoder {
            true => "stable-diffusion-xl-v1-base",
            false => "stable-diffusion-xl-v1-refiner",
        };
        let prediction = if scheduler["prediction_type"] == "v_prediction" { "v" } else { "epsilon" };
        configs.insert("scheduler".into(), scheduler);
        let entries = [
            ("format", "pt".to_owned()),
            ("modelspec.architecture", architecture.into()),
            ("modelspec.implementation", "sgm".into()),
            ("modelspec.prediction_type", prediction.into()),
            ("modelspec.sai_model_spec", "1.0.0".into()),
            (CONFIGS, Value::Object(configs).to_string()),
        ];
        entries.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()
    }
}

/// The empty tensors that say how a model's outputs are to be read.
fn markers(scheduler: &Value) -> impl Iterator<Item = &'static str> {
    let v = scheduler["prediction_type"] == "v_prediction";
    let zero = scheduler["rescale_betas_zero_snr"] == json!(true);
    [(v, "v_pred"), (zero, "ztsnr")].into_iter().filter(|(there, _)| *there).map(|(_, marker)| marker)
}

impl Entry {
    fn new(weights: &Weights) -> Self {
        Self { shape: Vec::new(), weights: Some(weights.clone()), parts: Vec::new(), transposed: false }
    }

    /// The elements, in `dtype`.
    fn bytes(&self, key: &str, dtype: DType) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (name, shape) in &self.parts {
            let weights = self.weights.iter().map(|weights| weights.tensor(name, shape));
            for tensor in weights {
                let mut values = tensor.map_err(io::Error::other)?.to_vec();
                if let (true, &[rows, columns]) = (self.transposed, shape.as_slice()) {
                    values = transposed(&values, rows, columns);
                }
                bytes.extend(narrowed(&values, dtype).ok_or_else(|| too_large(key, dtype))?);
            }
        }
        Ok(bytes)
    }
}

/// Adds a tensor of a network to the tensor of the file that contains it.
fn add(entry: &mut Entry, key: &str, shape: &[usize], part: Part) {
    // Thirds come in the order of their keys: k, q, v. The file has query, key and value.
    let place = match part {
        Part::Third(i) => entry.parts.partition_point(|(other, _)| third(other) < i),
        _ => entry.parts.len(),
    };
    entry.parts.insert(place, (key.to_owned(), shape.to_vec()));
    entry.shape = match (part, shape) {
        (Part::Third(_), [rows, rest @ ..]) => [&[3 * rows], rest].concat(),
        (Part::Pointwise, [out, inp]) => vec![*out, *inp, 1, 1],
        _ => part.shape(shape),
    };
    entry.transposed = part == Part::Transposed;
}

/// The third of the rows that a text encoder's `q_proj`, `k_proj` or `v_proj` is.
fn third(key: &str) -> usize {
    ["q_proj", "k_proj", "v_proj"].iter().position(|name| key.contains(name)).unwrap_or(0)
}

fn too_large(key: &str, dtype: DType) -> io::Error {
    io::Error::other(format!("{key}: a value is too large for {dtype}: --dtype bf16 or f32 has room"))
}

/// Little-endian elements in `dtype`. `None`: a finite value is beyond the dtype's range.
fn narrowed(values: &[f32], dtype: DType) -> Option<Vec<u8>> {
    let mut halves = vec![f16::ZERO; if dtype == DType::F16 { values.len() } else { 0 }];
    match dtype {
        DType::F32 => return Some(values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        DType::BF16 => return Some(values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()),
        DType::F16 => halves.convert_from_f32_slice(values),
    }
    let fits = halves.iter().zip(values).all(|(half, x)| half.is_finite() || !x.is_finite());
    fits.then(|| halves.iter().flat_map(|half| half.to_le_bytes()).collect())
}

impl TensorFile {
    /// Writes the whole file.
    ///
    /// # Errors
    /// An error of `to`; a tensor cannot be read, or has a value that the dtype has no room for.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let entries =
            self.tensors.iter().map(|(key, entry)| (key.as_str(), self.dtype, entry.shape.as_slice()));
        let header = safetensors_header(&self.metadata, entries);
        to.write_all(&(header.len() as u64).to_le_bytes())?;
        to.write_all(header.as_bytes())?;
        for (key, entry) in &self.tensors {
            to.write_all(&entry.bytes(key, self.dtype)?)?;
        }
        Ok(())
    }
}
