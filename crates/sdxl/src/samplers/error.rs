//! What can be wrong with a scheduler's name, configuration or step count.

use serde_json::Value;

/// Why no schedule could be made. Every variant is bad input: it names the field or file, what was expected and found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No sampler has this name.
    #[error("scheduler: expected one of {expected}, found {found:?}")]
    Name {
        /// The names there are, separated by commas.
        expected: String,
        /// The name asked for.
        found: String,
    },
    /// The configuration cannot be read, or is no JSON object.
    #[error("{file}: {reason}")]
    File {
        /// The file's path.
        file: String,
        /// What the reader said.
        reason: String,
    },
    /// A field of the configuration has a value that is wrong or not supported.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Field {
        /// The file's path.
        file: String,
        /// The field, as diffusers spells it.
        field: String,
        /// What it may hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// The schedule cannot be cut into this many steps.
    #[error("num_inference_steps: expected {expected}, found {found}")]
    Steps {
        /// The step counts that this configuration allows.
        expected: String,
        /// The step count asked for.
        found: usize,
    },
}

/// A value for an error's text: lists and objects can be long.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_string(),
        Value::String(text) if text.chars().count() > 40 => "a long string".to_string(),
        other => other.to_string(),
    }
}
