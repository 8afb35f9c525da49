//! What can be wrong with a request.

/// How many characters of a wrong value are shown.
const SHOWN: usize = 80;

/// A field whose feature is not built yet: its name, whether a value of it asks for the feature, and what to say.
pub(crate) type Unavailable = (&'static str, fn(&serde_json::Value) -> bool, &'static str);

/// A field of a request that cannot be accepted. Always the caller's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", clean(field))]
pub struct InputError {
    /// The field's wire name, as it was given.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No field has this name.
    #[error("unknown field{}", .nearest.as_ref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// The field that the name was probably meant to be.
        nearest: Option<String>,
    },
    /// The value is of the wrong type, out of range, or not one of the choices.
    #[error("expected {}, found {}", line(expected), line(found))]
    Value {
        /// What the field takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The field has no default and was not given.
    #[error("required, but not given")]
    Missing,
    /// The field was given more than once.
    #[error("given twice")]
    Twice,
    /// The field is part of the interface, but what it asks for is not built yet.
    #[error("{0}")]
    Unavailable(&'static str),
    /// A file that the field names cannot be used.
    #[error("{}: {}", clean(path), line(reason))]
    File {
        /// The file, as it was named.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// What may quote a request, on one line: a terminal obeys control characters.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The beginning of what a request gave, on one line.
pub(super) fn clean(text: &str) -> String {
    match text.char_indices().nth(4 * SHOWN) {
        Some((end, _)) => line(&text[..end]) + "…",
        None => line(text),
    }
}

impl InputError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: Problem) -> InputError {
        InputError { field: field.into(), problem }
    }

    /// `field` takes `expected`, but `found` was given, of which the beginning is shown.
    pub fn value(field: &str, expected: impl Into<String>, found: impl Into<String>) -> InputError {
        let mut found = found.into();
        if let Some((end, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(end);
            found.push('…');
        }
        InputError::new(field, Problem::Value { expected: expected.into(), found })
    }
}
