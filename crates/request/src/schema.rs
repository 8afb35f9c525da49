//! The JSON schema of a request, and its uses: parsing text, checking values, suggesting names.
//!
//! A schema has the form of the published interface's components: `title`, `type`, `default`, `x-order`, `description`, `minimum`,
//! `maximum`, `enum`, and `format: uri` for a file. Choices are in the field itself, not behind a `$ref`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{InputError, Problem, clean};

/// The most bytes of a text: far more than any prompt that is read to its end, and few enough to be encoded in seconds.
pub const MAX_TEXT: usize = 64 << 10;
/// The most bytes of a field of files, which may contain them as data URIs.
const MAX_DATA: usize = 1 << 30;

/// A request's schema.
#[derive(Debug, Clone)]
pub struct Schema {
    root: Value,
    fields: Vec<Field>,
}

/// A field of a request, as in the schema.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name in requests.
    pub name: String,
    spec: Map<String, Value>,
    required: bool,
    files: bool,
    folder: bool,
    /// What the command line's help adds to the published description.
    addition: Option<&'static str>,
}

/// A field's JSON type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Text, one of several choices, or a file (see [`Field::is_file`]).
    Text,
}

impl Schema {
    /// The schema of a request type.
    pub(crate) fn of<T: JsonSchema>() -> Schema {
        let settings = SchemaSettings::draft2020_12().with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        });
        let generated = settings.into_generator().into_root_schema_for::<T>().to_value();
        let empty = Map::new();
        let required: Vec<&Value> = generated["required"].as_array().into_iter().flatten().collect();
        let properties = generated["properties"].as_object().unwrap_or(&empty);
        let fields: Vec<Field> = (properties.iter().enumerate())
            .map(|(order, (name, spec))| {
                let required = required.iter().any(|r| *r == name);
                // Not in the published form, where such a field is plain text.
                let files = spec.get("x-files").is_some();
                let folder = spec.get("x-folder").is_some();
                Field {
                    name: name.clone(),
                    spec: published_form(name, order, required, spec),
                    required,
                    files,
                    folder,
                    addition: None,
                }
            })
            .collect();
        let properties: Map<String, Value> =
            fields.iter().map(|f| (f.name.clone(), Value::Object(f.spec.clone()))).collect();
        let mut root = json!({ "title": generated["title"], "type": "object" });
        if !required.is_empty() {
            root["required"] = generated["required"].clone();
        }
        root["properties"] = Value::Object(properties);
        Schema { root, fields }
    }

    /// Adds a field, a file or a folder, that the published interface lacks.
    pub(crate) fn with_path(mut self, name: &str, description: &str) -> Schema {
        let spec = json!({ "type": "string", "format": "uri", "description": description });
        let spec = spec.as_object().cloned().unwrap_or_default();
        let name = name.into();
        self.fields.push(Field { name, spec, required: false, files: false, folder: true, addition: None });
        self
    }

    /// Adds to a field's description on the command line. The published one stays in the schema.
    pub(crate) fn with_addition(mut self, name: &str, addition: &'static str) -> Schema {
        for field in self.fields.iter_mut().filter(|field| field.name == name) {
            field.addition = Some(addition);
        }
        self
    }

    /// Removes all fields but `names`.
    pub(crate) fn with_only(mut self, names: &[&str]) -> Schema {
        self.fields.retain(|field| names.contains(&field.name.as_str()));
        if let Some(properties) = self.root["properties"].as_object_mut() {
            properties.retain(|name, _| names.contains(&name.as_str()));
        }
        self
    }

    /// Removes the minimum and the maximum of a field.
    pub fn without_limits(mut self, name: &str) -> Schema {
        for field in self.fields.iter_mut().filter(|field| field.name == name) {
            field.spec.retain(|key, _| key != "minimum" && key != "maximum");
            self.root["properties"][name] = Value::Object(field.spec.clone());
        }
        self
    }

    /// Changes the minimum of a field.
    pub fn with_minimum(mut self, name: &str, minimum: i64) -> Schema {
        for field in self.fields.iter_mut().filter(|field| field.name == name) {
            field.spec.insert("minimum".into(), minimum.into());
            self.root["properties"][name] = Value::Object(field.spec.clone());
        }
        self
    }

    /// Changes the choices of a field.
    pub fn with_choices(mut self, name: &str, choices: &[&str]) -> Schema {
        for field in self.fields.iter_mut().filter(|field| field.name == name) {
            field.spec.insert("enum".into(), json!(choices));
            self.root["properties"][name] = Value::Object(field.spec.clone());
        }
        self
    }

    /// The schema as a JSON document.
    pub fn json(&self) -> &Value {
        &self.root
    }

    /// The fields, in the published order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field with this name.
    ///
    /// # Errors
    /// No field has this name. The error suggests the nearest.
    pub fn field(&self, name: &str) -> Result<&Field, InputError> {
        self.fields.iter().find(|f| f.name == name).ok_or_else(|| {
            let nearest = crate::nearest(name, self.fields.iter().map(|f| f.name.as_str())).map(String::from);
            InputError::new(name, Problem::Unknown { nearest })
        })
    }
}

/// A field's schema in the published form: with its order of keys, a title and the field's position, and without
/// details of Rust (integer widths, `null`, the documentation of single choices).
fn published_form(name: &str, order: usize, required: bool, spec: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let choices: Vec<Value> = match spec.get("oneOf").and_then(Value::as_array) {
        Some(documented) => documented.iter().map(|choice| choice["const"].clone()).collect(),
        None => spec.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
    };
    let kind = match spec.get("type") {
        Some(Value::Array(types)) => types.iter().find(|t| *t != "null").cloned(),
        Some(kind) => Some(kind.clone()),
        None => None,
    };
    out.insert("type".into(), kind.unwrap_or_else(|| json!("string")));
    out.insert("title".into(), Value::String(title(name)));
    if !choices.is_empty() {
        out.insert("enum".into(), Value::Array(choices));
    }
    if spec.get("format").is_some_and(|f| f == "uri") {
        out.insert("format".into(), json!("uri"));
    }
    if let Some(default) = spec.get("default").filter(|d| !d.is_null() && !required) {
        out.insert("default".into(), default.clone());
    }
    for key in ["maximum", "minimum", "multipleOf"] {
        if let Some(limit) = spec.get(key) {
            out.insert(key.into(), limit.clone());
        }
    }
    out.insert("x-order".into(), json!(order));
    let description = spec.get("description").and_then(Value::as_str).unwrap_or_default();
    out.insert("description".into(), Value::String(description.replace('\n', " ")));
    out
}

/// `num_outputs` → `Num Outputs`.
fn title(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

impl Field {
    /// The JSON type.
    pub fn kind(&self) -> FieldType {
        match self.spec["type"].as_str() {
            Some("integer") => FieldType::Integer,
            Some("number") => FieldType::Number,
            Some("boolean") => FieldType::Boolean,
            _ => FieldType::Text,
        }
    }

    /// Whether the value names a file.
    pub fn is_file(&self) -> bool {
        self.spec.get("format").is_some_and(|f| f == "uri")
    }

    /// Whether a request must have the field.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether the value names several files, separated by commas.
    pub fn is_files(&self) -> bool {
        self.files
    }

    /// Whether the value may also name a folder.
    pub fn may_be_folder(&self) -> bool {
        self.folder
    }

    /// The default value.
    pub fn default(&self) -> Option<&Value> {
        self.spec.get("default")
    }

    /// The description of the field.
    pub fn description(&self) -> &str {
        self.spec["description"].as_str().unwrap_or_default()
    }

    /// What the command line's help adds to the description.
    pub fn addition(&self) -> Option<&'static str> {
        self.addition
    }

    /// The values that the field takes, in words: `an integer from 1 to 500`.
    pub fn expects(&self) -> String {
        if let Some(choices) = self.spec.get("enum").and_then(Value::as_array) {
            let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            return format!("one of {}", names.join(", "));
        }
        let what = match self.kind() {
            FieldType::Text if self.is_file() => "a file".into(),
            FieldType::Text if self.files => "a file, or several with commas between them".into(),
            FieldType::Text => "text".into(),
            FieldType::Boolean => "true or false".into(),
            FieldType::Number => "a number".into(),
            FieldType::Integer => match self.spec.get("multipleOf") {
                Some(step) => format!("a multiple of {step}"),
                None => "an integer".to_string(),
            },
        };
        match (self.spec.get("minimum"), self.spec.get("maximum")) {
            (Some(min), Some(max)) => format!("{what} from {min} to {max}"),
            (Some(min), None) => format!("{what}, at least {min}"),
            (None, Some(max)) => format!("{what}, at most {max}"),
            (None, None) => what,
        }
    }

    /// Parses `text` to a JSON value of the field's type. [`check`] checks ranges and choices.
    ///
    /// # Errors
    /// The text is not a value of this type.
    pub fn parse(&self, text: &str) -> Result<Value, InputError> {
        let wrong = || InputError::value(&self.name, self.expects(), format!("{text:?}"));
        match self.kind() {
            FieldType::Text => Ok(Value::String(text.into())),
            FieldType::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(wrong()),
            },
            FieldType::Number => {
                let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
                number.map(Value::Number).ok_or_else(wrong)
            }
            FieldType::Integer => {
                let unsigned = text.parse::<u64>().map(Value::from);
                unsigned.or_else(|_| text.parse::<i64>().map(Value::from)).map_err(|_| wrong())
            }
        }
    }

    /// Whether `value` has the field's type, is in range, and is one of the choices.
    fn accepts(&self, value: &Value) -> bool {
        let right_type = match self.kind() {
            FieldType::Integer => value.is_u64() || value.is_i64(),
            FieldType::Number => value.is_number(),
            FieldType::Boolean => value.is_boolean(),
            FieldType::Text => value.is_string(),
        };
        // Converting to f64 rounds only integers above 2^53, where no field has a limit.
        let number = value.as_f64();
        let keeps = |limit: &str, holds: fn(f64, f64) -> bool| match (
            number,
            self.spec.get(limit).and_then(Value::as_f64),
        ) {
            (Some(n), Some(limit)) => holds(n, limit),
            _ => true,
        };
        let choices = self.spec.get("enum").and_then(Value::as_array);
        right_type
            && keeps("minimum", |n, min| n >= min)
            && keeps("maximum", |n, max| n <= max)
            && keeps("multipleOf", |n, step| n % step == 0.0)
            && choices.is_none_or(|c| c.contains(value))
    }
}

/// Checks a request's JSON object against its schema: names are known, values have the type of their field and are in range and
/// among the choices, and no required field is missing. `null` for a field without a default means that the field was not given.
///
/// # Errors
/// A field is invalid. The error names the first.
pub fn check(schema: &Schema, given: Map<String, Value>) -> Result<Map<String, Value>, InputError> {
    let mut checked = Map::new();
    for (name, value) in given {
        let field = schema.field(&name)?;
        if value.is_null() && field.default().is_none() {
            continue;
        }
        if !field.accepts(&value) {
            return Err(InputError::value(&name, field.expects(), value.to_string()));
        }
        let most = if field.is_file() || field.is_files() { MAX_DATA } else { MAX_TEXT };
        if let Some(bytes) = value.as_str().map(str::len).filter(|bytes| *bytes > most) {
            return Err(InputError::value(&name, format!("at most {most} bytes"), bytes.to_string()));
        }
        checked.insert(name, value);
    }
    match schema.fields.iter().find(|f| f.required && !checked.contains_key(&f.name)) {
        Some(missing) => Err(InputError::new(&missing.name, Problem::Missing)),
        None => Ok(checked),
    }
}

/// Deserializes a typed request, or other settings, from a [`check`]ed object.
///
/// # Errors
/// The type does not have a name or a value of the object.
pub fn deserialize<T: DeserializeOwned>(checked: Map<String, Value>) -> Result<T, InputError> {
    let shown = Value::Object(checked.clone()).to_string();
    serde_json::from_value(Value::Object(checked)).map_err(|e| {
        InputError::value("input", format!("a valid request ({})", clean(&e.to_string())), shown)
    })
}

/// Splits the value of a field with several file names at its commas. A comma in a name is written `\,`. A backslash is
/// literal, except before a comma, where two mean one. Spaces around a name are ignored.
pub fn split(text: &str) -> Vec<PathBuf> {
    let (mut names, mut backslashes) = (vec![String::new()], 0_usize);
    for c in text.chars() {
        let name = names.last_mut().expect("there is one");
        match c {
            '\\' => {
                name.push(c);
                backslashes += 1;
                continue;
            }
            // Half of the backslashes before the comma remain. If their number is odd, the comma is part of the name.
            ',' => {
                name.truncate(name.len() - backslashes.div_ceil(2));
                if backslashes % 2 == 1 { name.push(c) } else { names.push(String::new()) }
            }
            _ => name.push(c),
        }
        backslashes = 0;
    }
    names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

/// Joins file names to a value that [`split`] splits again. Names must not begin or end with spaces.
pub fn join<P: AsRef<Path>>(files: &[P]) -> String {
    let mut text = String::new();
    for (i, file) in files.iter().enumerate() {
        let name = file.as_ref().to_string_lossy();
        for (j, part) in name.split(',').enumerate() {
            if j > 0 {
                double_backslashes(&mut text);
                text.push_str("\\,");
            }
            text.push_str(part);
        }
        if i + 1 < files.len() {
            double_backslashes(&mut text);
            text.push(',');
        }
    }
    text
}

/// Doubles the backslashes at the end of `text`.
fn double_backslashes(text: &mut String) {
    let count = text.len() - text.trim_end_matches('\\').len();
    text.extend(std::iter::repeat_n('\\', count));
}
