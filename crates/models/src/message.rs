//! Messages about what a file holds.

/// Text that is quoted from a file in a message: at most 160 characters, on one line. Files are not trusted.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
