//! Writes safetensors files. The same tensors and metadata give the same bytes. (The format's own library writes
//! metadata in a random order.)

use std::collections::BTreeMap;
use std::io::{self, Write};

use calotype_tensor::{DType, Tensor};
use serde_json::{Map, Value, json};

use super::Stored;

/// The content of a safetensors file to write.
#[derive(Debug, Default)]
pub struct SafetensorsFile {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by key.
    pub tensors: BTreeMap<String, Stored>,
}

impl SafetensorsFile {
    /// Adds a tensor.
    pub(super) fn add(&mut self, key: impl Into<String>, tensor: &Tensor) {
        self.tensors.insert(key.into(), tensor.clone().into());
    }

    /// Adds an entry of metadata.
    pub(super) fn add_metadata(&mut self, key: &str, value: impl ToString) {
        self.metadata.insert(key.into(), value.to_string());
    }

    /// Writes the whole file.
    ///
    /// # Errors
    /// An error of `to`.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let header = self.header();
        to.write_all(&(header.len() as u64).to_le_bytes())?;
        to.write_all(header.as_bytes())?;
        self.ordered().iter().try_for_each(|(_, tensor)| tensor.write(to))
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        let data: usize = self.tensors.values().map(Stored::size).sum();
        (8 + self.header().len() + data) as u64
    }

    /// Tensors in the order of the file. Wide elements come first, as in the format's own library, so that all
    /// tensors are aligned.
    fn ordered(&self) -> Vec<(&String, &Stored)> {
        let mut ordered: Vec<_> = self.tensors.iter().collect();
        ordered.sort_by_key(|(key, tensor)| (std::cmp::Reverse(tensor.dtype().size()), *key));
        ordered
    }

    fn header(&self) -> String {
        let ordered = self.ordered();
        let entries = ordered.iter().map(|(key, tensor)| (key.as_str(), tensor.dtype(), tensor.shape()));
        safetensors_header(&self.metadata, entries)
    }
}

/// The header of a file with these tensors (key, dtype, shape), whose data follow each other.
pub fn safetensors_header<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, DType, &'a [usize])>,
) -> String {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0;
    for (key, dtype, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let dtype = match dtype {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
        };
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(key.into(), entry);
    }
    let mut text = Value::Object(header).to_string();
    // Not by formatting, which pads to at most 65,535 characters.
    let padding = text.len().next_multiple_of(8) - text.len();
    text.extend(std::iter::repeat_n(' ', padding));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the headers of whole networks with thousands of tensors: JSON, padded to a multiple of 8 bytes.
    #[test]
    fn long_headers() {
        for count in [0, 1, 5000] {
            let names: Vec<String> = (0..count).map(|i| format!("down_blocks.{i}.weight")).collect();
            let tensors = names.iter().map(|name| (name.as_str(), DType::F32, &[2, 3][..]));
            let header = safetensors_header(&BTreeMap::new(), tensors);
            assert_eq!(header.len() % 8, 0);
            let json: Value = serde_json::from_str(&header).expect("JSON");
            assert_eq!(json.as_object().map(Map::len), Some(count));
        }
    }
}
