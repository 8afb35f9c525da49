//! New tokens: their names, and the words of a prompt that stand for them.

use std::collections::BTreeMap;
use std::ops::Range;

/// `<s0>`, `<s1>`, …
pub(super) fn names(range: Range<usize>) -> Vec<String> {
    range.map(|i| format!("<s{i}>")).collect()
}

/// The numbers of a text that is nothing but new tokens: `<s0><s1>` → 0, 1.
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

/// A number as `<s…>` has it: no sign, no zeros in front.
fn digits(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n: &usize| n.to_string() == text)
}

/// `text` with every `<sN>`, N below `count`, as `<s{N + by}>`.
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

/// `prompt` with every word of `map` as what it stands for. Only whole words, in exactly this case: TOK is neither in
/// TOKYO nor in token. Where several fit, the longest is meant; what is put in is not looked at again.
pub(super) fn replaced(prompt: &str, map: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(next) = prompt[at..].chars().next() {
        let fits = |(word, _): &(&String, &String)| is_word(prompt, at, word);
        match map.iter().filter(fits).max_by_key(|(word, _)| word.len()) {
            Some((word, value)) => {
                out += value;
                at += word.len();
            }
            None => {
                out.push(next);
                at += next.len_utf8();
            }
        }
    }
    out
}

/// Whether `word` stands at byte `at` of the prompt, and is not a part of a longer one.
fn is_word(prompt: &str, at: usize, word: &str) -> bool {
    let (before, rest) = prompt.split_at(at);
    let Some(after) = rest.strip_prefix(word).filter(|_| !word.is_empty()) else { return false };
    !joins(before.chars().next_back(), word.chars().next())
        && !joins(word.chars().next_back(), after.chars().next())
}

/// Whether two neighbours are of one word.
fn joins(a: Option<char>, b: Option<char>) -> bool {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    word(a) && word(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    /// Protects: TOKYO, token and tok stay what they are; punctuation ends a word.
    #[test]
    fn whole_words_are_replaced() {
        let tok = map(&[("TOK", "<s0><s1>")]);
        for (prompt, want) in [
            ("a photo of TOK", "a photo of <s0><s1>"),
            ("TOK, TOK's dog and TOK.", "<s0><s1>, <s0><s1>'s dog and <s0><s1>."),
            ("TOKYO, STOK, TOK2, TOK_x, tok, token, éTOK", "TOKYO, STOK, TOK2, TOK_x, tok, token, éTOK"),
            ("(TOK:1.2) 猫 TOK", "(<s0><s1>:1.2) 猫 <s0><s1>"),
            ("TOK TOK", "<s0><s1> <s0><s1>"),
            ("", ""),
        ] {
            assert_eq!(replaced(prompt, &tok), want);
        }
        let two = map(&[("my", "a"), ("my-style", "my"), ("", "never")]);
        assert_eq!(replaced("my-style, my own", &two), "my, a own", "the longest, and once");
    }

    /// Protects: the second file's tokens come behind the first's, and other text stays.
    #[test]
    fn tokens_are_numbered_on() {
        assert_eq!(shifted("a <s0><s1> <s9> <sx> <s", 2, 3), "a <s3><s4> <s9> <sx> <s");
        assert_eq!(numbers("<s0><s12>"), Some(vec![0, 12]));
        for other in ["", "<s0> x", "x<s0>", "<s0", "<s-1>", "<s01>"] {
            assert_eq!(numbers(other), None, "{other}");
        }
    }
}
