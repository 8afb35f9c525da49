//! PyTorch's files of weights (`.bin`, `.pth`, `.pt`) since version 1.6: a zip of stored entries, of which `data.pkl` is a pickled dict of
//! tensors, and each of `data/` a storage of elements, which can be mapped.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;

use safetensors::tensor::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::element::element_bytes;
use super::pickle::{Id, Pickle, Storage, StridedTensor, Value};
use super::tuple;
use crate::message::shorten;

/// The largest pickle, in bytes. That of Swin2SR, of 728 tensors, has 130 kB.
const MAX_PICKLE_BYTES: usize = 8 << 20;
/// The most entries: a storage for each tensor. Also the most tensors.
const MAX_ENTRIES: usize = 1 << 16;
/// The dicts of a training's file that hold the state dict, the best first. Without them the file's own dict is it.
const STATE_DICTS: [&str; 2] = ["params_ema", "params"];

/// A tensor of a file.
pub(super) struct TorchTensor {
    pub(super) key: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// From the first element to the last: inside the file.
    pub(super) bytes: Range<usize>,
    /// From one element to the next, along each dimension, where they do not follow each other.
    pub(super) strides: Option<Vec<usize>>,
}

/// Whether these are the bytes of a zip. A safetensors file may begin so too: with the length of a header.
pub(super) fn is_zip(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") && file.get(5..9) != Some(b"\0\0\0{")
}

/// Whether these are the bytes of a pickle by itself, as PyTorch wrote before 1.6. A safetensors file may begin so too.
pub(super) fn is_pickle(file: &[u8]) -> bool {
    matches!(file, [0x80, 2..=5, ..]) && file.get(5..9) != Some(b"\0\0\0{")
}

/// The tensors of a file.
///
/// # Errors
/// The file is no such zip, or a truncated one; its pickle asks for more than tensors; a tensor leaves its storage.
pub(super) fn read(file: &[u8]) -> Result<Vec<TorchTensor>, String> {
    let entries = Entries::open(file)?;
    if entries.bytes("byteorder").is_ok_and(|order| &file[order] == b"big") {
        return Err("byteorder: expected little, found big".into());
    }
    let program = entries.bytes("data.pkl")?;
    if program.len() > MAX_PICKLE_BYTES {
        let found = program.len();
        return Err(format!("data.pkl: expected at most {MAX_PICKLE_BYTES} bytes, found {found}"));
    }
    let pickle = Pickle::read(&file[program]).map_err(|what| format!("data.pkl: {what}"))?;
    // Of two items with one key, the later one counts.
    let tensors: BTreeMap<_, _> = state_dict(&pickle)?.into_iter().collect();
    let tensor = |(key, value): (&str, &Value)| match value {
        Value::Tensor(tensor) => match pickle.value(tensor.storage) {
            Value::Storage(storage) => placed(key, tensor, storage, &entries),
            other => Err(format!("expected a storage, found {}", other.kind())),
        }
        .map_err(|what| format!("{}: {what}", shorten(key))),
        other => Err(format!("{}: expected a tensor, found {}", shorten(key), other.kind())),
    };
    tensors.into_iter().map(tensor).collect()
}

/// The keys and values of the state dict.
fn state_dict<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<Vec<(&'a str, &'p Value<'a>)>, String> {
    let items = |value: &'p Value<'a>| {
        let Value::Dict(items) = value else {
            return Err(format!("expected a dict of tensors, found {}", value.kind()));
        };
        if items.len() > MAX_ENTRIES {
            return Err(format!("a dict: expected at most {MAX_ENTRIES} items, found {}", items.len()));
        }
        let item = |&(key, value): &(Id, Id)| match pickle.value(key) {
            Value::Text(key) => Ok((*key, pickle.value(value))),
            other => Err(format!("a key of a dict: expected text, found {}", other.kind())),
        };
        items.iter().map(item).collect::<Result<Vec<_>, _>>()
    };
    let top = items(pickle.value(pickle.result))?;
    let inner = |name: &&str| top.iter().find(|(key, value)| key == name && matches!(value, Value::Dict(_)));
    STATE_DICTS.iter().find_map(inner).map(|(_, inner)| items(inner)).unwrap_or(Ok(top))
}

/// A tensor at its place in the file.
fn placed(
    key: &str,
    tensor: &StridedTensor,
    storage: &Storage,
    entries: &Entries,
) -> Result<TorchTensor, String> {
    let all = entries.bytes(&format!("data/{}", storage.key))?;
    let size = element_bytes(storage.dtype);
    let claimed = storage.len.checked_mul(size);
    if claimed.is_none_or(|claimed| claimed > all.len()) {
        let (claimed, found) = (storage.len, all.len());
        return Err(format!("expected {claimed} elements of {size} bytes, found {found} bytes (truncated?)"));
    }
    let StridedTensor { offset, shape, strides, .. } = tensor;
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let steps = shape.iter().zip(strides).try_fold(0usize, |last, (size, stride)| {
        last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
    });
    let span = if elements == Some(0) { Some(0) } else { steps.and_then(|steps| steps.checked_add(1)) };
    let end = span.and_then(|span| span.checked_add(*offset)).filter(|end| *end <= storage.len);
    // Also that no element is shared by many: memory is taken for as many as the file has.
    let (Some(end), Some(elements)) = (end, elements.filter(|elements| *elements <= storage.len)) else {
        let (shape, strides) = (tuple(shape), tuple(strides));
        return Err(format!(
            "shape {shape}, strides {strides}, offset {offset}: expected a part of {} elements",
            storage.len
        ));
    };
    let bytes = all.start + offset * size..all.start + end * size;
    let strides = (elements > 0 && !is_contiguous(shape, strides)).then(|| strides.clone());
    Ok(TorchTensor { key: key.to_string(), dtype: storage.dtype, shape: shape.clone(), bytes, strides })
}

/// Whether the elements follow each other, row by row.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let follows = size == 1 || stride == expected;
        expected *= size;
        follows
    })
}

/// The entries of the zip below its one folder.
struct Entries {
    /// By name, without the folder's: where the bytes lie, or why they cannot be used.
    places: HashMap<String, Result<Range<usize>, String>>,
}

impl Entries {
    fn open(file: &[u8]) -> Result<Entries, String> {
        let bad = |what: String| format!("not a whole PyTorch file (a zip archive): {what}");
        // The library's own words are about zip archives, of which the user need not know anything.
        let no_end =
            |_| bad("its list of entries, which is at its end, is missing or damaged (truncated?)".into());
        let mut zip = ZipArchive::new(Cursor::new(file)).map_err(no_end)?;
        if zip.len() > MAX_ENTRIES {
            return Err(bad(format!("expected at most {MAX_ENTRIES} entries, found {}", zip.len())));
        }
        let mut folder = None;
        let mut places = HashMap::new();
        let count = zip.len();
        for i in 0..count {
            let damaged = || bad(format!("entry {i} of {count} is damaged"));
            let entry = zip.by_index_raw(i).map_err(|_| damaged())?;
            let name = entry.name().map_err(|_| damaged())?.into_owned();
            let Some((top, rest)) = name.split_once('/') else { continue };
            // The folder is that of the first entry, as for PyTorch.
            if folder.get_or_insert_with(|| top.to_string()) != top {
                continue;
            }
            let place = if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                Err("expected a stored entry, found a compressed or encrypted one".into())
            } else {
                inside(entry.data_start(), entry.size(), file.len())
            };
            places.insert(rest.to_string(), place);
        }
        match places.contains_key("data.pkl") {
            true => Ok(Entries { places }),
            false => Err("a zip archive without PyTorch's data.pkl: expected weights".into()),
        }
    }

    fn bytes(&self, name: &str) -> Result<Range<usize>, String> {
        let place = self.places.get(name);
        let place = place.ok_or_else(|| format!("{}: missing", shorten(name)))?.clone();
        place.map_err(|what| format!("{}: {what}", shorten(name)))
    }
}

/// The range of an entry, if it lies in the file.
fn inside(start: Option<u64>, size: u64, file: usize) -> Result<Range<usize>, String> {
    let end = start.and_then(|start| start.checked_add(size)).and_then(|end| usize::try_from(end).ok());
    match (start, end) {
        (Some(start), Some(end)) if end <= file => Ok(start as usize..end),
        _ => Err(format!("expected {size} bytes in the file, found fewer (truncated?)")),
    }
}
