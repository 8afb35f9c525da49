//! New tokens: their names, and the limits of words that stand for them.

use std::ops::Range;

use calotype_models::tokenizer::CLIP_TOKENS;

/// The names `<s0>`, `<s1>`, … of the tokens in `range`.
pub(super) fn names(range: Range<usize>) -> Vec<String> {
    range.map(|i| format!("<s{i}>")).collect()
}

/// The numbers of a text that consists of new tokens only: `<s0><s1>` → 0, 1.
pub(super) fn numbers(text: &str) -> Option<Vec<usize>> {
    let mut rest = text;
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let (number, after) = rest.strip_prefix("<s")?.split_once('>')?;
        numbers.push(digits(number)?);
        rest = after;
    }
    (!numbers.is_empty()).then_some(numbers)
}

/// The number in `<s…>`, without sign or leading zeros.
fn digits(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n: &usize| n.to_string() == text)
}

/// Replaces every `<sN>` of `text`, with N below `count`, by `<s{N + by}>`.
pub(super) fn shifted(text: &str, count: usize, by: usize) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("<s") {
        let (before, token) = rest.split_at(at);
        out += before;
        let number = token[2..].split_once('>').and_then(|(n, after)| Some((digits(n)?, after)));
        match number.filter(|(n, _)| *n < count) {
            Some((n, after)) => {
                out += &format!("<s{}>", n + by);
                rest = after;
            }
            None => {
                out += "<s";
                rest = &token[2..];
            }
        }
    }
    out + rest
}

/// The most bytes of a parameter file. Such files are one short line.
pub(super) const MAX_PARAMS: usize = 1 << 20;
/// The most words of a file. Published files have one to three words.
pub(super) const MAX_WORDS: usize = 1000;
/// The most bytes of a word.
const MAX_WORD: usize = 256;
/// The most bytes of the text that a word stands for.
pub(super) const MAX_VALUE: usize = 1024;
/// The most new tokens of one word: a prompt has no room for more.
const MAX_TOKENS: usize = CLIP_TOKENS - 2;

/// Checks a word of prompts that stands for `count` new tokens.
///
/// # Errors
/// The word is empty or too long, or stands for too many tokens.
pub(super) fn check(word: &str, count: usize) -> Result<(), String> {
    if word.trim().is_empty() || word.len() > MAX_WORD {
        return Err(format!("expected a word of 1 to {MAX_WORD} bytes, found {}", word.len()));
    }
    if count > MAX_TOKENS {
        return Err(format!(
            "expected at most {MAX_TOKENS} tokens, as many as a prompt has room for, found {count}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the numbering: the tokens of a second file follow those of the first, and other text stays.
    #[test]
    fn tokens_are_numbered_on() {
        assert_eq!(shifted("a <s0><s1> <s9> <sx> <s", 2, 3), "a <s3><s4> <s9> <sx> <s");
        assert_eq!(numbers("<s0><s12>"), Some(vec![0, 12]));
        for other in ["", "<s0> x", "x<s0>", "<s0", "<s-1>", "<s01>"] {
            assert_eq!(numbers(other), None, "{other}");
        }
    }
}
