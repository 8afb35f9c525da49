//! Errors of a request.

/// The number of characters of an invalid value that a message shows.
const SHOWN: usize = 80;

/// A field of a request is invalid. The caller can always fix the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", clean(field))]
pub struct InputError {
    /// The field's name in requests, as given.
    pub field: String,
    /// The problem of the field.
    pub problem: Problem,
}

/// The problem of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No field has this name.
    #[error("unknown field{}", .nearest.as_ref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// The field that was probably meant.
        nearest: Option<String>,
    },
    /// The value is of the wrong type, out of range, or not one of the choices.
    #[error("expected {}, found {}", line(expected), line(found))]
    Value {
        /// The values that are valid.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// The field has no default and was not given.
    #[error("required, but not given")]
    Missing,
    /// The field was given more than once.
    #[error("given twice")]
    Twice,
    /// A file that the field names cannot be used.
    #[error("{}: {}", clean(path), line(reason))]
    File {
        /// The file's path, as given.
        path: String,
        /// The reason.
        reason: String,
    },
}

/// Replaces control characters, which a terminal would obey, as the text may quote a request.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The beginning of text from a request, on one line.
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

    /// An error of `field`, which expects `expected`. The message shows the beginning of `found`.
    pub fn value(field: &str, expected: impl Into<String>, found: impl Into<String>) -> InputError {
        let mut found = found.into();
        if let Some((end, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(end);
            found.push('…');
        }
        InputError::new(field, Problem::Value { expected: expected.into(), found })
    }
}
