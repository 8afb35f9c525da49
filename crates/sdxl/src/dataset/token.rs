//! The token of a training in its captions: whole words, whatever the letter case.

use std::ops::Range;

/// Whether `token` stands in `caption` as a whole word: `TOK` does in `a tok, smiling`, not in `TOKYO`.
///
/// A word ends where letters, digits, underscores and combining marks do, so a token may itself hold spaces or signs.
/// The empty token is in no caption.
pub fn contains_token(caption: &str, token: &str) -> bool {
    find(caption, token, 0).is_some()
}

/// Where `token` stands in `caption` as a whole word, in bytes.
pub fn find_token(caption: &str, token: &str) -> Vec<Range<usize>> {
    let next = |from: &Range<usize>| find(caption, token, from.end);
    std::iter::successors(find(caption, token, 0), next).collect()
}

/// `caption` with `value` in place of every whole word `token`, whatever its letter case.
pub fn replace_token(caption: &str, token: &str, value: &str) -> String {
    let mut replaced = String::with_capacity(caption.len());
    let mut done = 0;
    for word in find_token(caption, token) {
        replaced.push_str(&caption[done..word.start]);
        replaced.push_str(value);
        done = word.end;
    }
    replaced.push_str(&caption[done..]);
    replaced
}

/// The bytes of the first whole word `token` at or after `from`, a character's beginning.
fn find(caption: &str, token: &str, from: usize) -> Option<Range<usize>> {
    let token: Vec<char> = token.trim().chars().flat_map(fold).collect();
    if token.is_empty() {
        return None;
    }
    caption[from..].char_indices().find_map(|(at, _)| {
        let start = from + at;
        let end = start + prefix(&caption[start..], &token)?;
        stands_alone(caption, start..end).then_some(start..end)
    })
}

/// How many bytes of `text` spell `token`, which is folded. A match ends where a character of `text` does.
pub(crate) fn prefix(text: &str, token: &[char]) -> Option<usize> {
    let mut left = token;
    for (at, c) in text.char_indices() {
        if left.is_empty() {
            return Some(at);
        }
        for c in fold(c) {
            left = left.strip_prefix(&[c])?;
        }
    }
    left.is_empty().then_some(text.len())
}

/// A character without its case. By way of upper case, so that ς is σ, and ß is ss.
pub(crate) fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// Whether no word goes over the ends of `word`.
pub(crate) fn stands_alone(text: &str, word: Range<usize>) -> bool {
    let joined = |at: usize| {
        let (before, after) = text.split_at(at);
        before.chars().next_back().is_some_and(in_word) && after.chars().next().is_some_and(in_word)
    };
    !joined(word.start) && !joined(word.end)
}

/// Letters, digits, underscore, and the marks that combine with the letter before them.
fn in_word(c: char) -> bool {
    let mark = matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}');
    c.is_alphanumeric() || c == '_' || mark
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the token is found beside spaces and signs, in any letter case, and never inside of a word.
    #[test]
    fn only_whole_words_are_the_token() {
        for caption in
            ["TOK", "a photo of TOK, smiling", "(tok)", "TOK's hat", "no-Tok", "«TOK»", "the TOK\n"]
        {
            assert!(contains_token(caption, "TOK"), "{caption}");
        }
        for caption in ["", "TOKYO", "token", "stok", "TOK_1", "TOK2", "TO K", "éTOK", "TOK\u{301}", "TOKé"]
        {
            assert!(!contains_token(caption, "TOK"), "{caption}");
        }
        assert!(!contains_token("anything", ""));
        assert!(!contains_token("any thing", "  "));
    }

    /// Protects: a token may be more than letters.
    #[test]
    fn tokens_with_signs_and_spaces() {
        assert!(contains_token("a <s0> here", "<s0>"));
        assert!(contains_token("a<s0>b", "<s0>"), "the token's own ends are no letters");
        assert!(contains_token("My dog runs", "my DOG"));
        assert!(!contains_token("my dogs run", "my dog"));
    }

    /// Protects: letters whose other case has another length or form neither panic nor miss.
    #[test]
    fn case_beyond_ascii() {
        assert!(contains_token("der ФЁДОР да", "фёдор"));
        assert!(contains_token("ΟΔΟΣ", "οδος"));
        assert!(contains_token("GROSS", "groß"));
        assert!(contains_token("İx", "İX"));
        assert!(!contains_token("grossß", "groß"), "a longer word");
        assert!(!contains_token("ß", "s"), "half a letter");
    }

    /// Protects: every whole word is replaced, and everything else stays byte for byte.
    #[test]
    fn replacing_keeps_the_rest() {
        assert_eq!(replace_token("TOK in TOKYO: tok!", "TOK", "<s0><s1>"), "<s0><s1> in TOKYO: <s0><s1>!");
        assert_eq!(replace_token("猫TOK 猫 TOK猫 TOK 猫", "tok", "x"), "猫TOK 猫 TOK猫 x 猫");
        assert_eq!(
            replace_token("TOK", "TOK", "TOK TOK"),
            "TOK TOK",
            "what was put in is not looked at again"
        );
        assert_eq!(replace_token("a", "", "b"), "a");
    }
}
