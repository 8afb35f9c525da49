//! Reads JSON configs: the error, the size limits, and the checks that all configs share.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::file_kind::wrong_kind;
use crate::message::shorten;

/// The largest config, in bytes. Real configs are a few kB; the limit keeps a wrong file from filling the memory.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Limits far above any real model, and low enough that no product of sizes overflows.
pub(crate) const MAX_CHANNELS: usize = 1 << 16;
pub(crate) const MAX_BLOCKS: usize = 16;
pub(crate) const MAX_LAYERS: usize = 128;
/// The attention kernels take head sizes that are multiples of this.
const HEAD_MULTIPLE: usize = 8;

/// A problem of a model folder or of one of its JSON files.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder is missing, unreadable or invalid.
    #[error("{path}: {problem}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A field of a JSON file is invalid.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Field {
        /// The JSON file.
        file: PathBuf,
        /// The field's name in the file.
        field: String,
        /// The values that are valid.
        expected: String,
        /// The value that was found, shortened.
        found: String,
    },
}

impl ConfigError {
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), problem: problem.into() }
    }
}

/// Reads a whole regular file of at most `limit` bytes as UTF-8.
///
/// # Errors
/// The file is not a regular file, cannot be read, is longer than `limit`, has the signature of another format,
/// or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, ConfigError> {
    let fail = |problem: String| ConfigError::file(path, problem);
    let meta = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?;
    if !meta.is_file() {
        return Err(fail("expected a file, found a folder or device".into()));
    }
    let file = File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("expected at most {limit} bytes, found more")));
    }
    // A table of no lines is valid; JSON of no bytes is not.
    let may_be_empty = path.extension().is_none_or(|extension| extension != "json");
    if let Some(kind) = wrong_kind(&bytes).filter(|_| !bytes.is_empty() || !may_be_empty) {
        return Err(fail(format!("expected text, found {kind}")));
    }
    String::from_utf8(bytes).map_err(|e| fail(format!("expected UTF-8: {}", e.utf8_error())))
}

/// A JSON config file: its object, and errors that carry the file's name.
pub(crate) struct Json {
    file: PathBuf,
    /// The object's place in the file: empty, or `text_config.` of the object in the field `text_config`.
    place: String,
    pub(crate) value: Value,
}

impl Json {
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read_text(file, MAX_CONFIG_BYTES)?)
    }

    /// A config that was not read from a file of its own. Errors name `file`.
    pub(crate) fn of(file: &Path, value: Value) -> Self {
        Self { file: file.to_path_buf(), place: String::new(), value }
    }

    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ConfigError::file(file, format!("not valid JSON: {e}")))?;
        if !value.is_object() {
            let problem = format!("expected a JSON object, found {}", brief(&value));
            return Err(ConfigError::file(file, problem));
        }
        Ok(Self::of(file, value))
    }

    /// Deserializes the object as `T`. An error names the field.
    pub(crate) fn to<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(&self.value)
            .map_err(|e| ConfigError::file(&self.file, format!("{}{}", self.place, located("", e))))
    }

    /// Deserializes one field as `T`.
    pub(crate) fn at<T: DeserializeOwned>(&self, field: &str) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(&self.value[field])
            .map_err(|e| ConfigError::file(&self.file, format!("{}{}", self.place, located(field, e))))
    }

    /// Replaces fields by those of another file.
    pub(crate) fn overlay(&mut self, other: Self) {
        if let (Value::Object(mine), Value::Object(other)) = (&mut self.value, other.value) {
            mine.extend(other);
        }
    }

    pub(crate) fn fail(&self, field: &str, expected: impl Into<String>, found: impl ToString) -> ConfigError {
        ConfigError::Field {
            file: self.file.clone(),
            field: format!("{}{field}", self.place),
            expected: expected.into(),
            found: shorten(&found.to_string()),
        }
    }

    /// Checks fields for which one value is supported. A field may also be absent.
    pub(crate) fn fixed(&self, fields: &[(&str, &str)]) -> Result<(), ConfigError> {
        for &(field, only) in fields {
            match self.value.get(field) {
                Some(found) if !same(found, only) => {
                    return Err(self.fail(
                        field,
                        format!("{only} (nothing else is supported)"),
                        brief(found),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An object inside this one, as a config of its own (in the same file).
    pub(crate) fn nested(&self, field: &str) -> Option<Self> {
        let value = self.value.get(field).filter(|v| v.is_object())?.clone();
        Some(Self { file: self.file.clone(), place: format!("{}{field}.", self.place), value })
    }

    /// An object inside this one, or an empty object, which stands for the defaults, if the field is absent or null.
    pub(crate) fn nested_or_empty(&self, field: &str) -> Result<Self, ConfigError> {
        match self.value.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(_)) => return Ok(self.nested(field).expect("an object")),
            Some(other) => return Err(self.fail(field, "an object", brief(other))),
        }
        let empty = Value::Object(serde_json::Map::new());
        Ok(Self { file: self.file.clone(), place: format!("{}{field}.", self.place), value: empty })
    }

    /// Checks that the config is that of the model class `class` of transformers. The config names its class in `architectures`; one
    /// without this field has the `model_type` of the class.
    pub(crate) fn class(&self, class: &str, model_type: &str) -> Result<(), ConfigError> {
        if let Some(found) = self.value["architectures"][0].as_str() {
            return match found == class {
                true => Ok(()),
                false => Err(self.fail("architectures", class, found)),
            };
        }
        match self.value.get("model_type") {
            Some(found) if found == model_type => Ok(()),
            found => {
                let found = found.map_or("no architectures and no model_type".into(), brief);
                Err(self.fail("model_type", format!("{model_type:?}, the type of {class}"), found))
            }
        }
    }

    /// Checks that an activation is SiLU, by either of its names, or absent.
    pub(crate) fn silu(&self, field: &str) -> Result<(), ConfigError> {
        match self.value.get(field) {
            None => Ok(()),
            Some(Value::String(name)) if name == "silu" || name == "swish" => Ok(()),
            Some(other) => Err(self.fail(field, "\"silu\" (nothing else is supported)", brief(other))),
        }
    }

    /// Checks that a field without a usable default is present.
    pub(crate) fn given<T>(&self, field: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.fail(field, "a value", "none"))
    }

    pub(crate) fn even(&self, field: &str, value: usize) -> Result<(), ConfigError> {
        match value % 2 {
            0 => Ok(()),
            _ => Err(self.fail(field, "an even number", value)),
        }
    }

    /// The one value of all blocks: given once, or as a list of equal values.
    pub(crate) fn uniform(&self, field: &str, values: PerBlock<usize>) -> Result<usize, ConfigError> {
        match values {
            PerBlock::One(value) => Ok(value),
            PerBlock::Each(list) => match list.split_first() {
                Some((first, rest)) if rest.iter().all(|v| v == first) => Ok(*first),
                _ => Err(self.fail(field, "one number, or a list of equal ones", format!("{list:?}"))),
            },
        }
    }

    pub(crate) fn size(&self, field: &str, value: usize, max: usize) -> Result<(), ConfigError> {
        if value == 0 || value > max {
            return Err(self.fail(field, format!("1 to {max}"), value));
        }
        Ok(())
    }

    pub(crate) fn sizes(&self, field: &str, values: &[usize], max: usize) -> Result<(), ConfigError> {
        values.iter().try_for_each(|&v| self.size(field, v, max))
    }

    pub(crate) fn length(&self, field: &str, found: usize, expected: usize) -> Result<(), ConfigError> {
        if found != expected {
            return Err(self.fail(field, format!("{expected} entries"), format!("{found}")));
        }
        Ok(())
    }

    /// Checks that `groups` divides all of the channel counts.
    pub(crate) fn groups(&self, groups: usize, channels: &[usize]) -> Result<(), ConfigError> {
        self.size("norm_num_groups", groups, MAX_CHANNELS)?;
        match channels.iter().find(|&&c| c % groups != 0) {
            Some(c) => Err(self.fail("norm_num_groups", format!("a divisor of {c} channels"), groups)),
            None => Ok(()),
        }
    }

    /// Checks that `heads` divides `channels`.
    pub(crate) fn heads_of_any_size(
        &self,
        field: &str,
        heads: usize,
        channels: usize,
    ) -> Result<(), ConfigError> {
        self.size(field, heads, MAX_CHANNELS)?;
        match channels.is_multiple_of(heads) {
            true => Ok(()),
            false => {
                Err(self.fail(field, format!("a number of heads that divides {channels} channels"), heads))
            }
        }
    }

    /// Checks that `heads` divides `channels` into heads of a size that the kernels support.
    pub(crate) fn heads(&self, field: &str, heads: usize, channels: usize) -> Result<(), ConfigError> {
        self.heads_of_any_size(field, heads, channels)?;
        let size = channels / heads;
        if !size.is_multiple_of(HEAD_MULTIPLE) {
            let expected = format!("a head size (channels / heads) that is a multiple of {HEAD_MULTIPLE}");
            return Err(self.fail(field, expected, format!("{channels} / {heads} = {size}")));
        }
        Ok(())
    }

    /// Checks that a number is above 0 and finite in f32.
    pub(crate) fn positive(&self, field: &str, value: f64) -> Result<f32, ConfigError> {
        let narrow = value as f32;
        if !(narrow > 0.0 && narrow.is_finite()) {
            return Err(self.fail(field, "a number above 0", value));
        }
        Ok(narrow)
    }

    /// Checks that each of `found` is one of `choices`.
    pub(crate) fn choice(&self, field: &str, found: &[String], choices: &[&str]) -> Result<(), ConfigError> {
        match found.iter().find(|f| !choices.contains(&f.as_str())) {
            Some(f) => Err(self.fail(field, choices.join(" or "), format!("{f:?}"))),
            None => Ok(()),
        }
    }
}

/// A setting that is given once for all blocks, or as a list with an entry for each block.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a whole number, or a list of them")]
pub(crate) enum PerBlock<T> {
    // First, because a list has one entry for each block, even where an entry may itself be a list.
    Each(Vec<T>),
    One(T),
}

impl<T: Clone> PerBlock<T> {
    pub(crate) fn expand(self, json: &Json, field: &str, blocks: usize) -> Result<Vec<T>, ConfigError> {
        match self {
            Self::One(value) => Ok(vec![value; blocks]),
            Self::Each(values) => {
                json.length(field, values.len(), blocks)?;
                Ok(values)
            }
        }
    }
}

/// Whether two JSON values are equal. 1 equals 1.0, and null equals false.
fn same(found: &Value, only: &str) -> bool {
    if found.is_null() {
        return only == "null" || only == "false";
    }
    match (found.as_f64(), only.parse::<f64>()) {
        (Some(a), Ok(b)) => a == b,
        _ => serde_json::from_str::<Value>(only).is_ok_and(|only| only == *found),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        other => shorten(&other.to_string()),
    }
}

/// Describes the place of an error in a JSON value (below `field`), and the error.
pub(crate) fn located(field: &str, error: serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = match error.path().to_string() {
        path if path == "." || path == "?" => field.to_owned(),
        path if field.is_empty() => path,
        path => format!("{field}.{path}"),
    };
    let problem = shorten(&error.inner().to_string());
    if path.is_empty() { problem } else { format!("{path}: {problem}") }
}
