//! The trained words of a request, and their places in prompts.

use std::collections::{BTreeMap, BTreeSet};

use crate::token::{fold, prefix, stands_alone};
use calotype_models::shorten;

/// ComfyUI's syntax of an embedding: `embedding:NAME`, also with the file's extension.
const CALL: &str = "embedding:";
const EXTENSIONS: [&str; 3] = [".safetensors", ".pt", ".bin"];

/// The values of words in prompts, by the first character of the word.
#[derive(Default)]
pub(super) struct Words(BTreeMap<char, Vec<Word>>);

struct Word {
    text: String,
    folded: Vec<char>,
    value: String,
}

/// A prompt with its words replaced.
pub(super) struct Replaced<'a> {
    pub prompt: String,
    /// The words that the prompt contained.
    pub used: BTreeSet<&'a str>,
}

impl Words {
    pub(super) fn new(map: &BTreeMap<String, String>) -> Self {
        let mut words: BTreeMap<char, Vec<Word>> = BTreeMap::new();
        for (text, value) in map {
            let folded: Vec<char> = text.trim().chars().flat_map(fold).collect();
            if let Some(first) = folded.first() {
                let word = Word { text: text.trim().into(), value: value.clone(), folded: folded.clone() };
                words.entry(*first).or_default().push(word);
            }
        }
        Self(words)
    }

    /// Replaces every word of `prompt` by its value. Only whole words match, in any letter case: `a tok` contains TOK, `TOKYO`
    /// and `token` do not. Of several words that match, the longest is taken, and of words that differ in case, the one with
    /// the case of the prompt. Values are not searched again.
    pub(super) fn replace(&self, prompt: &str) -> Replaced<'_> {
        let (mut out, mut used) = (String::new(), BTreeSet::new());
        let mut at = 0;
        while let Some(next) = prompt[at..].chars().next() {
            match self.at(prompt, at, next) {
                Some((word, end)) => {
                    let called = drop_call(&mut out);
                    out += &word.value;
                    used.insert(word.text.as_str());
                    let extension = EXTENSIONS.iter().find(|e| called && prompt[end..].starts_with(**e));
                    at = end + extension.map_or(0, |extension| extension.len());
                }
                None => {
                    out.push(next);
                    at += next.len_utf8();
                }
            }
        }
        Replaced { prompt: out, used }
    }

    /// The word at byte `at` of the prompt, whose next character is `next`, and the end of the word.
    fn at(&self, prompt: &str, at: usize, next: char) -> Option<(&Word, usize)> {
        let words = self.0.get(&fold(next).next()?)?;
        let found = words.iter().filter_map(|word| {
            let end = at + prefix(&prompt[at..], &word.folded)?;
            stands_alone(prompt, at..end).then_some((word, end))
        });
        found.max_by_key(|(word, end)| (*end, prompt[at..*end] == *word.text))
    }
}

/// Removes `embedding:` from the end of a prompt. Returns whether it was there.
fn drop_call(prompt: &mut String) -> bool {
    let start = prompt.len().saturating_sub(CALL.len());
    let called = prompt.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(CALL))
        && !prompt[..start].chars().next_back().is_some_and(char::is_alphanumeric);
    if called {
        prompt.truncate(start);
    }
    called
}

/// The names of embeddings that a prompt still contains after known ones have been replaced.
pub(super) fn unknown_embeddings(prompt: &str) -> Vec<String> {
    let lower = prompt.to_ascii_lowercase();
    let calls = lower.match_indices(CALL).map(|(at, _)| &prompt[at + CALL.len()..]);
    let name = |rest: &str| {
        let name =
            rest.split(|c: char| c.is_whitespace() || ",:()[]<>".contains(c)).next().unwrap_or_default();
        shorten(name)
    };
    calls.map(name).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Words {
        Words::new(&pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect())
    }

    /// Protects the replacement of a word in any letter case, as in captions during training. TOKYO and token stay, and
    /// punctuation ends a word.
    #[test]
    fn whole_words_are_replaced() {
        let tok = words(&[("TOK", "<s0><s1>")]);
        for (prompt, want) in [
            ("a photo of TOK", "a photo of <s0><s1>"),
            ("a photo of tok", "a photo of <s0><s1>"),
            ("TOK, TOK's dog and Tok.", "<s0><s1>, <s0><s1>'s dog and <s0><s1>."),
            ("TOKYO, STOK, TOK2, TOK_x, token, éTOK", "TOKYO, STOK, TOK2, TOK_x, token, éTOK"),
            ("(TOK:1.2) 猫 TOK", "(<s0><s1>:1.2) 猫 <s0><s1>"),
            ("TOK TOK", "<s0><s1> <s0><s1>"),
            ("", ""),
        ] {
            assert_eq!(tok.replace(prompt).prompt, want);
        }
        let two = words(&[("my", "a"), ("my-style", "my"), ("", "never")]);
        assert_eq!(two.replace("my-style, my own").prompt, "my, a own", "the longest, and once");
        let cases = words(&[("TOK", "1"), ("tok", "2")]);
        assert_eq!(cases.replace("tok TOK").prompt, "2 1", "as written, where two differ in case");
    }

    /// Protects ComfyUI's syntax: it is removed from the prompt, and an embedding that no file has is reported.
    #[test]
    fn embeddings_are_called() {
        let style = words(&[("MyStyle", "<s0>")]);
        for (prompt, want) in [
            ("a fox, embedding:MyStyle", "a fox, <s0>"),
            ("a fox, Embedding:mystyle.safetensors, red", "a fox, <s0>, red"),
            ("(embedding:MyStyle:1.2)", "(<s0>:1.2)"),
            ("MyStyle.safetensors", "<s0>.safetensors"),
        ] {
            assert_eq!(style.replace(prompt).prompt, want);
        }
        assert_eq!(style.replace("MYSTYLE").used.into_iter().collect::<Vec<_>>(), ["MyStyle"]);
        assert_eq!(unknown_embeddings("embedding:other, a Embedding:B:1.2) embedding: x"), ["other", "B"]);
    }
}
