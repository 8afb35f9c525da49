//! Texts of a set: how long they may be, and captions in one line.

/// The most that is read of a text or a table, in bytes.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// A caption in one line: runs of white space and control characters are one space, none at the ends.
pub(super) fn one_line(text: &str) -> String {
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
