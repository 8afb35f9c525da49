//! Errors of a scheduler's name, configuration or number of steps.

use serde_json::Value;

/// The reason why no schedule was made. All variants are invalid input; each names the field or file, and what was expected and
/// found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No sampler has this name.
    #[error("scheduler: expected one of {expected}, found {found:?}")]
    Name {
        /// The available names, separated by commas.
        expected: String,
        /// The requested name.
        found: String,
    },
    /// The configuration cannot be read, or is not a JSON object.
    #[error("{file}: {reason}")]
    File {
        /// The file's path.
        file: String,
        /// The error of the reader.
        reason: String,
    },
    /// A field of the configuration has an invalid or unsupported value.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Field {
        /// The file's path.
        file: String,
        /// The field, as diffusers spells it.
        field: String,
        /// The values that are valid.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// The sampler does not choose its timesteps by a spacing.
    #[error("timestep_spacing: expected none with {sampler}, which has timesteps of its own, found {found}")]
    Spacing {
        /// The sampler's name.
        sampler: String,
        /// The requested spacing.
        found: String,
    },
    /// The strength leaves no step.
    #[error("prompt_strength: expected at least {least} with {steps} steps, found {found}")]
    Strength {
        /// The smallest strength that leaves a step.
        least: String,
        /// The number of steps of the schedule.
        steps: usize,
        /// The requested strength.
        found: String,
    },
    /// The schedule cannot have this many steps.
    #[error("num_inference_steps: expected {expected}, found {found}")]
    Steps {
        /// The step counts that this configuration allows.
        expected: String,
        /// The requested number of steps.
        found: usize,
    },
}

/// Shortens a value for an error's text, because lists and objects can be long.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_string(),
        Value::String(text) if text.chars().count() > 40 => "a long string".to_string(),
        other => other.to_string(),
    }
}
