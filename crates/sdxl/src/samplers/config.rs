//! `scheduler_config.json`, read as diffusers' `from_config` reads the file for another scheduler class.
//!
//! A file that one class wrote can configure any other class. A class takes the keys that its constructor has, uses its own
//! defaults for missing keys, and ignores the others. So a class is a list of keys with defaults ([`Presets`]).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use calotype_models::ModelFolder;
use serde_json::{Map, Value};

use super::error::brief;
use super::spacing::Spacing;
use super::{ScheduleError, class};

/// The largest file, in bytes. These files are small; the limit keeps a wrong file from filling the memory.
const MAX_BYTES: u64 = 4 << 20;

/// The values of a `scheduler_config.json`. Their meaning depends on the sampler.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    file: String,
    values: Map<String, Value>,
    /// The selection of timesteps that replaces the file's.
    pub(super) spacing: Option<Spacing>,
}

impl SchedulerConfig {
    /// Reads the scheduler's configuration of a model.
    ///
    /// # Errors
    /// The file is missing or invalid, or no sampler has the noise levels of the model's scheduler.
    pub fn open(folder: &ModelFolder) -> Result<SchedulerConfig, ScheduleError> {
        if let Some(name) = &folder.scheduler_class {
            class::check(&folder.path().join("model_index.json"), "scheduler", name)?;
        }
        let path = folder.scheduler_config_path();
        match folder.scheduler_config() {
            Some(text) => Self::parse(&path.display().to_string(), text),
            None => Self::load(&path),
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not a JSON object, or is of a class whose noise levels no sampler has. The other fields are
    /// checked when a schedule is made.
    pub fn load(path: &Path) -> Result<SchedulerConfig, ScheduleError> {
        let file = path.display().to_string();
        let bad = |reason: String| ScheduleError::File { file: file.clone(), reason };
        let mut text = String::new();
        let opened = File::open(path).and_then(|from| from.take(MAX_BYTES + 1).read_to_string(&mut text));
        opened.map_err(|error| bad(error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(bad(format!("expected at most {MAX_BYTES} bytes, found more")));
        }
        Self::parse(&file, &text)
    }

    /// Parses `text`. Errors name the file `file`.
    ///
    /// # Errors
    /// The text is not a JSON object, or is of a class whose noise levels no sampler has.
    pub fn parse(file: &str, text: &str) -> Result<SchedulerConfig, ScheduleError> {
        let bad = |reason: String| ScheduleError::File { file: file.to_string(), reason };
        let values = match serde_json::from_str(&without_python_constants(text)) {
            Ok(Value::Object(values)) => values,
            Ok(other) => return Err(bad(format!("expected a JSON object, found {}", brief(&other)))),
            Err(error) => return Err(bad(format!("not JSON: {error}"))),
        };
        match values.get("_class_name").and_then(Value::as_str) {
            Some(name) => class::check(Path::new(file), "_class_name", name)?,
            None => class::check_fields(Path::new(file), |field| values.contains_key(field))?,
        }
        Ok(SchedulerConfig { file: file.to_string(), values, spacing: None })
    }

    /// The same configuration with another selection of timesteps. `None`: that of the file. Samplers that do not choose their
    /// timesteps by a spacing refuse it.
    pub fn with_spacing(mut self, spacing: Option<Spacing>) -> SchedulerConfig {
        self.spacing = spacing;
        if let Some(spacing) = spacing {
            self.values.insert("timestep_spacing".to_string(), spacing.name().into());
        }
        self
    }
}

/// Replaces NaN and ±Infinity, which Python writes as bare words and JSON does not allow, by null. Null stands
/// for the default; diffusers' own default of `lambda_min_clipped` is −Infinity.
fn without_python_constants(text: &str) -> String {
    let mut pieces = text.split('"').map(str::to_string).collect::<Vec<_>>();
    let mut outside = true;
    for piece in &mut pieces {
        if outside {
            *piece = piece.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
            outside = false;
        } else {
            // A quote after an odd number of backslashes does not end the string.
            outside = piece.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 0;
        }
    }
    pieces.join("\"")
}

/// The default of a constructor's argument.
#[derive(Debug, Clone, Copy)]
pub(super) enum Preset {
    /// `None`
    Null,
    /// A bool.
    Flag(bool),
    /// An int.
    Int(u64),
    /// A float.
    Float(f64),
    /// A str.
    Text(&'static str),
}

/// The arguments of a scheduler's constructor with their defaults.
pub(super) type Presets = &'static [(&'static str, Preset)];

impl Preset {
    fn value(self) -> Value {
        match self {
            Preset::Null => Value::Null,
            Preset::Flag(flag) => flag.into(),
            Preset::Int(number) => number.into(),
            Preset::Float(number) => number.into(),
            Preset::Text(text) => text.into(),
        }
    }
}

/// Fields that change the pictures in the classes that have them, and the values that change nothing. Published files contain
/// many other fields that only one class reads (`skip_prk_steps`, `set_alpha_to_one`).
const CHANGING: Presets = &[
    ("clip_sample", Preset::Flag(false)),
    ("final_sigmas_type", Preset::Text("zero")),
    ("interpolation_type", Preset::Text("linear")),
    ("lambda_min_clipped", Preset::Null),
    ("rescale_betas_zero_snr", Preset::Flag(false)),
    ("shift", Preset::Float(1.0)),
    ("snr_shift_scale", Preset::Float(1.0)),
    ("thresholding", Preset::Flag(false)),
    ("timestep_type", Preset::Text("discrete")),
    ("use_beta_sigmas", Preset::Flag(false)),
    ("use_exponential_sigmas", Preset::Flag(false)),
    ("use_flow_sigmas", Preset::Flag(false)),
    ("use_karras_sigmas", Preset::Flag(false)),
    ("use_lu_lambdas", Preset::Flag(false)),
];

/// A configuration, read for one scheduler class.
pub(super) struct Fields<'a> {
    pub(super) config: &'a SchedulerConfig,
    /// The arguments of the class.
    pub(super) class: Presets,
    /// Fields that the sampler sets, whatever the file contains.
    pub(super) forced: Presets,
}

impl Fields<'_> {
    /// The value of `key`; `None` if the class has no such argument.
    fn get(&self, key: &str) -> Option<Value> {
        let find = |presets: Presets| {
            presets.iter().find(|(name, _)| *name == key).map(|(_, preset)| preset.value())
        };
        let default = find(self.class)?;
        Some(find(self.forced).or_else(|| self.config.values.get(key).cloned()).unwrap_or(default))
    }

    /// The fields of the file that would change another class's pictures and that this class does not have, with their values.
    /// diffusers ignores them too.
    pub(super) fn ignored(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        CHANGING.iter().filter(|(key, _)| !self.has(key)).filter_map(|(key, neutral)| {
            let value = self.config.values.get(*key).filter(|value| !value.is_null())?;
            let equal = match (value.as_f64(), neutral.value().as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => *value == neutral.value(),
            };
            (!equal).then_some((*key, value))
        })
    }

    /// The name of the file.
    pub(super) fn file(&self) -> &str {
        &self.config.file
    }

    /// A bool. Null is false, as in Python. False if the class has no such argument.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ScheduleError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, "true or false", brief(&other))),
        }
    }

    /// A whole number within `range`. The start of `range` if the class has no such argument.
    pub(super) fn integer(&self, key: &str, range: (u64, u64)) -> Result<usize, ScheduleError> {
        let Some(value) = self.get(key) else { return Ok(range.0 as usize) };
        match value.as_u64() {
            Some(number) if (range.0..=range.1).contains(&number) => Ok(number as usize),
            _ => {
                Err(self.wrong(key, format!("a whole number from {} to {}", range.0, range.1), brief(&value)))
            }
        }
    }

    /// A number that `valid` accepts. `None` for null, or if the class has no such argument.
    pub(super) fn number(
        &self,
        key: &str,
        expected: &str,
        valid: fn(f64) -> bool,
    ) -> Result<Option<f64>, ScheduleError> {
        let value = self.get(key).unwrap_or(Value::Null);
        match value.as_f64() {
            Some(number) if valid(number) => Ok(Some(number)),
            None if value.is_null() => Ok(None),
            _ => Err(self.wrong(key, expected, brief(&value))),
        }
    }

    /// A [`number`](Self::number) that must not be null.
    pub(super) fn required(
        &self,
        key: &str,
        expected: &str,
        valid: fn(f64) -> bool,
    ) -> Result<f64, ScheduleError> {
        self.number(key, expected, valid)?.ok_or_else(|| self.wrong(key, expected, "null".to_string()))
    }

    /// The meaning of a name among `choices`. That of the first choice if the class has no such argument.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, ScheduleError> {
        let Some(value) = self.get(key) else { return Ok(choices[0].1) };
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, meaning)| *meaning).ok_or_else(|| self.wrong(key, names(), brief(&value)))
    }

    /// Whether the class has the argument `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.class.iter().any(|(name, _)| *name == key)
    }

    /// Whether the class has the argument `key` and its value is `text`.
    pub(super) fn is(&self, key: &str, text: &str) -> bool {
        self.get(key).is_some_and(|value| value.as_str() == Some(text))
    }

    /// A list of numbers that `valid` accepts. `None` for null, or if the class has no such argument.
    pub(super) fn numbers(
        &self,
        key: &str,
        expected: &str,
        valid: fn(f64) -> bool,
    ) -> Result<Option<Vec<f64>>, ScheduleError> {
        let items = match self.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(self.wrong(key, "a list of numbers or null", brief(&other))),
        };
        let number = |(i, item): (usize, &Value)| match item.as_f64() {
            Some(number) if valid(number) => Ok(number),
            _ => Err(self.wrong(&format!("{key}[{i}]"), expected, brief(item))),
        };
        items.iter().enumerate().map(number).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// The error of field `key`.
    pub(super) fn wrong(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> ScheduleError {
        ScheduleError::Field {
            file: self.config.file.clone(),
            field: key.to_string(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects files saved by diffusers, in which Python wrote a bare Infinity, and strings that only contain such a word.
    #[test]
    fn python_constants() {
        let text = r#"{"a": -Infinity, "b\"": NaN, "Infinity\\": "-Infinity \" NaN", "c": [Infinity]}"#;
        let values = SchedulerConfig::parse("f", text).expect("readable").values;
        assert_eq!(
            Value::Object(values),
            serde_json::json!({
                "a": null, "b\"": null, "Infinity\\": "-Infinity \" NaN", "c": [null]
            })
        );
    }

    /// Protects the warning about settings that change the pictures of some classes and that the sampler's class does not have.
    /// Settings of other classes in published files, and settings without effect, cause no warning.
    #[test]
    fn settings_that_are_not_used() {
        let text = r#"{"use_karras_sigmas": true, "rescale_betas_zero_snr": false, "clip_sample": null, "shift": 1,
            "thresholding": true, "skip_prk_steps": true, "set_alpha_to_one": false, "timestep_type": "continuous"}"#;
        let config = &SchedulerConfig::parse("f", text).expect("readable");
        let class = &[("thresholding", Preset::Flag(false))];
        let fields = Fields { config, class, forced: &[] };
        let ignored: Vec<&str> = fields.ignored().map(|(key, _)| key).collect();
        assert_eq!(ignored, ["timestep_type", "use_karras_sigmas"]);
    }

    /// Protects the reader: a file that is not a JSON object is an error that names the file.
    #[test]
    fn not_an_object() {
        for text in ["", "[]", "3", "null", "{", "\"\\", "{\"a\": 1e999}"] {
            let error = SchedulerConfig::parse("dir/s.json", text).expect_err(text).to_string();
            assert!(error.starts_with("dir/s.json: "), "{error}");
        }
    }
}
