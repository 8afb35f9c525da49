//! Quotes from files in messages.

/// Shortens text from a file for a message: at most 160 characters, without control characters. Files are not trusted.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
