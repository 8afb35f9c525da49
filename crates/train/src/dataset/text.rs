//! Limits of a set's texts, and captions on one line.

/// The most bytes of a text or a table.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// A prefix as a caption of its own, without the comma that would separate it from the rest.
pub(crate) fn alone(prefix: &str) -> String {
    one_line(prefix).trim_end_matches([',', ' ']).to_owned()
}

/// Puts a caption on one line: runs of whitespace and control characters become one space, and are removed at the ends.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}
