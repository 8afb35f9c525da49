//! Finds the files of a component, and where their tensors lie: safetensors, or where there are none, PyTorch's.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use calotype_tensor::io::{Mmap, open_weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use serde::Deserialize;

use super::element::element_bytes;
use super::torch_file;
use super::{Part, WeightsError, tuple};
use crate::file_kind::wrong_kind;
use crate::json::read_text;
use crate::message::shorten;

/// The largest shard index, in bytes. An index lists every tensor's name; SDXL's UNet has 1,680 tensors.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 1024;
/// The largest header, in bytes, as in the format's own library. SDXL's UNet has a header of 200 kB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A mapped file.
#[derive(Debug)]
pub(super) struct MappedFile {
    pub path: PathBuf,
    pub map: Mmap,
}

/// The place of a tensor. The range `bytes` is inside the file, and suits shape, strides and dtype.
#[derive(Debug)]
pub(super) struct Located {
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Range<usize>,
    /// From one element to the next, along each dimension, where they do not follow each other row by row.
    pub strides: Option<Vec<usize>>,
}

impl Located {
    /// A part of this tensor. The error describes a shape that has no such part.
    pub(super) fn part(&self, part: Part) -> Result<Self, String> {
        let (all, whole, strides) = (self.bytes.clone(), &self.shape, self.strides.clone());
        let (bytes, strides) = match (part, &whole[..]) {
            (Part::Third(i), [rows, ..]) if rows.is_multiple_of(3) => match strides {
                None => {
                    let third = all.len() / 3;
                    (all.start + i * third..all.start + (i + 1) * third, None)
                }
                Some(strides) => {
                    let before = i * (rows / 3) * strides[0] * element_bytes(self.dtype);
                    (all.start + before..all.end, Some(strides))
                }
            },
            (Part::Whole | Part::Pointwise, _) => (all, strides),
            (Part::Transposed, &[_, columns]) => {
                let [a, b] = strides.map_or([columns, 1], |strides| [strides[0], strides[1]]);
                (all, Some(vec![b, a]))
            }
            _ => return Err(tuple(whole)),
        };
        Ok(Self { file: self.file, dtype: self.dtype, shape: part.shape(whole), bytes, strides })
    }
}

/// A component's files, and their tensors by key.
#[derive(Debug)]
pub(super) struct Files {
    /// The file that an error about a missing tensor names: the single file, or the shards' index.
    pub name: PathBuf,
    pub files: Vec<MappedFile>,
    pub tensors: BTreeMap<String, Located>,
}

/// Opens the files of `stem` in `dir`: safetensors, else PyTorch's. An index is preferred to a single file, as in diffusers.
pub(super) fn open(dir: &Path, stem: &str, variant: Option<&str>) -> Result<Files, WeightsError> {
    let torch = if stem == "model" { "pytorch_model" } else { stem };
    for (stem, extension) in [(stem, "safetensors"), (torch, "bin")] {
        for variant in variant.into_iter().map(Some).chain([None, Some("fp16"), Some("bf16")]) {
            let [index, single] = names(stem, extension, variant).map(|name| dir.join(name));
            if index.is_file() {
                return open_shards(dir, &index);
            }
            if single.is_file() {
                return open_file(&single);
            }
        }
    }
    let problem = format!("no weights: expected {stem}.safetensors or {torch}.bin, found {}", listing(dir));
    Err(WeightsError::file(dir, problem))
}

/// Opens one file.
pub(super) fn open_file(path: &Path) -> Result<Files, WeightsError> {
    let mut files = Files { name: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
    files.add(path.to_path_buf(), |_| true)?;
    Ok(files)
}

/// The index and the single file of a variant.
fn names(stem: &str, extension: &str, variant: Option<&str>) -> [String; 2] {
    match variant {
        None => [format!("{stem}.{extension}.index.json"), format!("{stem}.{extension}")],
        Some(v) => [format!("{stem}.{extension}.index.{v}.json"), format!("{stem}.{v}.{extension}")],
    }
}

fn listing(dir: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(dir) else { return "no such folder".into() };
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.truncate(8);
    if names.is_empty() { "an empty folder".into() } else { shorten(&names.join(", ")) }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(dir: &Path, path: &Path) -> Result<Files, WeightsError> {
    let text = read_text(path, MAX_INDEX_BYTES).map_err(|e| WeightsError::Index(e.to_string()))?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|e| WeightsError::file(path, format!("not a shard index: {}", shorten(&e.to_string()))))?;
    let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    shards.sort();
    shards.dedup();
    if shards.len() > MAX_SHARDS {
        return Err(WeightsError::file(
            path,
            format!("expected at most {MAX_SHARDS} shards, found {}", shards.len()),
        ));
    }
    let mut files = Files { name: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
    for shard in shards {
        if !is_plain_name(shard) {
            let problem = format!(
                "expected the name of a .safetensors or .bin file beside it, found {:?}",
                shorten(shard)
            );
            return Err(WeightsError::file(path, problem));
        }
        // If two shards have a key, the index decides. A key that the index lacks is kept, and becomes a surplus tensor.
        files.add(dir.join(shard), |key| index.weight_map.get(key).is_none_or(|s| s == shard))?;
    }
    match index.weight_map.iter().find(|(key, _)| !files.tensors.contains_key(*key)) {
        Some((key, shard)) => Err(WeightsError::file(&dir.join(shard), format!("{}: missing", shorten(key)))),
        None => Ok(files),
    }
}

/// Whether a name from an index names a file of the same folder, and nothing else.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['\\', ':', '\0'])
        && (name.ends_with(".safetensors") || name.ends_with(".bin"))
}

impl Files {
    fn add(&mut self, path: PathBuf, keep: impl Fn(&str) -> bool) -> Result<(), WeightsError> {
        let map = open_weights(&path).map_err(|e| WeightsError::file(&path, e.to_string()))?;
        let tensors = located(&map, self.files.len()).map_err(|what| WeightsError::file(&path, what))?;
        self.tensors.extend(tensors.into_iter().filter(|(key, _)| keep(key)));
        self.files.push(MappedFile { path, map });
        Ok(())
    }
}

/// The tensors of a file of either format.
fn located(map: &[u8], file: usize) -> Result<Vec<(String, Located)>, String> {
    if torch_file::is_zip(map) {
        let tensors = torch_file::read(map)?.into_iter();
        let located = |tensor: torch_file::TorchTensor| {
            let torch_file::TorchTensor { key, dtype, shape, bytes, strides } = tensor;
            (key, Located { file, dtype, shape, bytes, strides })
        };
        return Ok(tensors.map(located).collect());
    }
    if torch_file::is_pickle(map) {
        let problem = "a PyTorch file in the format from before version 1.6 (a bare pickle), which is not read: load it with \
                       torch.load and save it again with torch.save, or as safetensors";
        return Err(problem.into());
    }
    let located = |(key, info, bytes): (String, TensorInfo, Range<usize>)| {
        (key, Located { file, dtype: info.dtype, shape: info.shape, bytes, strides: None })
    };
    Ok(Header::read(map)?.tensors.into_iter().map(located).collect())
}

/// The header of a safetensors file.
pub struct Header {
    /// The key of each tensor, its element type and shape, and the range of its bytes, which is inside the file.
    pub tensors: Vec<(String, TensorInfo, Range<usize>)>,
    /// `__metadata__`.
    pub metadata: HashMap<String, String>,
}

impl Header {
    /// Reads the header of a whole file.
    ///
    /// # Errors
    /// The bytes are not a safetensors file, or a truncated one. The text is one line without the file's name.
    pub fn read(file: &[u8]) -> Result<Self, String> {
        let bad = |what: String| format!("not a safetensors file: {}", shorten(&what));
        if let Some(kind) = wrong_kind(file) {
            return Err(bad(kind.into()));
        }
        check_extent(file).map_err(bad)?;
        let (header, metadata) = SafeTensors::read_metadata(file).map_err(|e| bad(e.to_string()))?;
        let data = header + 8;
        let mut tensors = Vec::new();
        for (key, info) in metadata.tensors() {
            let bytes = info.data_offsets.0 + data..info.data_offsets.1 + data;
            if bytes.end > file.len() {
                return Err(bad(format!("{key} ends beyond the file")));
            }
            tensors.push((key, info.clone(), bytes));
        }
        let metadata = metadata.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone()));
        Ok(Self { tensors, metadata: metadata.collect() })
    }
}

/// Reads the header of the file at `path`.
///
/// # Errors
/// The file is missing, not a regular file, or not a whole safetensors file.
pub fn header(path: &Path) -> Result<Header, WeightsError> {
    let map = open_weights(path).map_err(|e| WeightsError::file(path, e.to_string()))?;
    Header::read(&map).map_err(|what| WeightsError::file(path, what))
}

/// The extent of one entry of a safetensors header (`__metadata__` has none).
#[derive(Deserialize)]
struct Extent {
    #[serde(default)]
    data_offsets: [u64; 2],
}

/// Checks that the header is inside the file and of a plausible size, and that every tensor ends inside the file. This comes
/// before sizes are added up, because the parser's sums can overflow on a false header. The parser describes a header that is
/// not JSON.
fn check_extent(file: &[u8]) -> Result<(), String> {
    let Some(length) = file.first_chunk::<8>().map(|n| u64::from_le_bytes(*n)) else {
        return Err(format!("expected a header, found {} bytes (truncated?)", file.len()));
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!("expected a header of at most {MAX_HEADER_BYTES} bytes, found {length}"));
    }
    let after = file.len() as u64 - 8;
    let Some(data) = after.checked_sub(length) else {
        return Err(format!("its header says that it has {length} bytes, found {after} (truncated?)"));
    };
    let header = &file[8..8 + length as usize];
    let Ok(entries) = serde_json::from_slice::<HashMap<String, Extent>>(header) else { return Ok(()) };
    match entries.iter().filter(|(_, e)| e.data_offsets[1] > data).min_by_key(|(key, _)| *key) {
        Some((key, extent)) => Err(format!(
            "{key} ends at byte {} of the data, found {data} (truncated?)",
            extent.data_offsets[1]
        )),
        None => Ok(()),
    }
}
