//! Finds a training's token in captions, as a whole word in any letter case.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

/// Whether `caption` contains `token` as a whole word. `a tok, smiling` contains `TOK`, `TOKYO` does not.
///
/// A word consists of letters, digits, underscores and combining marks, so a token may itself contain spaces or signs. A word
/// also ends between Latin letters and characters of Chinese, Japanese, Korean, Thai and other scripts that are written without
/// spaces or with particles after the word. No caption contains the empty token.
pub fn contains_token(caption: &str, token: &str) -> bool {
    find(caption, token, 0).is_some()
}

/// The byte ranges of `caption` that are `token` as a whole word.
pub fn find_token(caption: &str, token: &str) -> Vec<Range<usize>> {
    let next = |from: &Range<usize>| find(caption, token, from.end);
    std::iter::successors(find(caption, token, 0), next).collect()
}

/// Replaces every whole word `token` of `caption` by `value`, in any letter case.
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

/// The byte range of the first whole word `token` at or after `from`, which is a character boundary.
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

/// The number of bytes at the start of `text` that spell `token`, which is case-folded. A match ends at a
/// character boundary.
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

/// Folds the case of a character. The conversion to upper case comes first, so that ς equals σ and ß equals ss.
pub(crate) fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// Whether no word extends over either end of `word`.
pub(crate) fn stands_alone(text: &str, word: Range<usize>) -> bool {
    let joined = |at: usize| {
        let (before, after) = text.split_at(at);
        before.chars().next_back().zip(after.chars().next()).is_some_and(|(a, b)| joins(a, b))
    };
    !joined(word.start) && !joined(word.end)
}

/// Whether two neighbouring characters belong to the same word.
fn joins(before: char, after: char) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || is_mark(c);
    in_word(before) && in_word(after) && (is_mark(after) || Script::of(before).joins(Script::of(after)))
}

/// Whether a character is a mark that combines with the letter before it.
fn is_mark(c: char) -> bool {
    // Variation selectors are combining marks too.
    is_combining_mark(c) || matches!(c, '\u{200d}')
}

/// How a script marks the end of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// By spaces and signs: Latin and most others.
    Spaced,
    /// By spaces, but a particle follows a word of another script without a space.
    Hangul,
    /// By a change of script: Japanese words in katakana.
    Katakana,
    /// Not at all: Chinese, hiragana, Thai, Lao, Burmese, Khmer, Tibetan.
    Unspaced,
}

impl Script {
    fn of(c: char) -> Script {
        match c {
            '\u{1100}'..='\u{11ff}'
            | '\u{3130}'..='\u{318f}'
            | '\u{a960}'..='\u{a97f}'
            | '\u{ac00}'..='\u{d7ff}' => Script::Hangul,
            '\u{30a0}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' => Script::Katakana,
            '\u{0e00}'..='\u{0fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' => Script::Unspaced,
            // Radicals, iteration marks and hiragana here; ideographs and their extensions below.
            '\u{2e80}'..='\u{2fdf}'
            | '\u{3005}'..='\u{3007}'
            | '\u{3040}'..='\u{309f}'
            | '\u{3100}'..='\u{312f}' => Script::Unspaced,
            '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}' => Script::Unspaced,
            _ => Script::Spaced,
        }
    }

    /// Whether neighbouring characters of these scripts may belong to the same word.
    fn joins(self, other: Script) -> bool {
        self == other && self != Script::Unspaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the match of whole words: next to spaces and signs, in any letter case, and never inside of a word.
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

    /// Protects word ends between scripts: scripts without spaces, and Korean particles, end a word of another script. A longer
    /// word of the same script does not match.
    #[test]
    fn words_between_scripts() {
        for caption in
            ["一张TOK的照片", "TOKの写真", "TOK의 사진", "ภาพTOKใหม่", "2张tok", "トTOKト", "（TOK）"]
        {
            assert_eq!(find_token(caption, "TOK").len(), 1, "{caption}");
        }
        for caption in ["一张TOKYO的照片", "一TOK1", "STOKの写真", "TOK\u{301}の"] {
            assert!(!contains_token(caption, "TOK"), "{caption}");
        }
        assert!(contains_token("小明的照片", "小明") && contains_token("ネコの写真", "ネコ"));
        assert!(!contains_token("ネコバスの写真", "ネコ") && !contains_token("토끼풀", "토끼"));
    }

    /// Protects tokens that have characters other than letters.
    #[test]
    fn tokens_with_signs_and_spaces() {
        assert!(contains_token("a <s0> here", "<s0>"));
        assert!(contains_token("a<s0>b", "<s0>"), "the token's own ends are no letters");
        assert!(contains_token("My dog runs", "my DOG"));
        assert!(!contains_token("my dogs run", "my dog"));
    }

    /// Protects letters whose other case has another length or form: they neither panic nor fail to match.
    #[test]
    fn case_beyond_ascii() {
        assert!(contains_token("der ФЁДОР да", "фёдор"));
        assert!(contains_token("ΟΔΟΣ", "οδος"));
        assert!(contains_token("GROSS", "groß"));
        assert!(contains_token("İx", "İX"));
        assert!(!contains_token("grossß", "groß"), "a longer word");
        assert!(!contains_token("ß", "s"), "half a letter");
    }

    /// Protects replacement: every whole word is replaced, and all other bytes stay.
    #[test]
    fn replacing_keeps_the_rest() {
        assert_eq!(replace_token("TOK in TOKYO: tok!", "TOK", "<s0><s1>"), "<s0><s1> in TOKYO: <s0><s1>!");
        assert_eq!(replace_token("猫TOK 猫 TOKé TOK 猫", "tok", "x"), "猫x 猫 TOKé x 猫");
        assert_eq!(
            replace_token("TOK", "TOK", "TOK TOK"),
            "TOK TOK",
            "what was put in is not looked at again"
        );
        assert_eq!(replace_token("a", "", "b"), "a");
    }
}
