//! The trained words of a request, and where prompts have them.

use std::collections::{BTreeMap, BTreeSet};

use crate::token::{fold, prefix, stands_alone};
use calotype_models::shorten;

/// ComfyUI's way to call an embedding: `embedding:NAME`, also with the file's extension.
const CALL: &str = "embedding:";
const EXTENSIONS: [&str; 3] = [".safetensors", ".pt", ".bin"];

/// What stands for what in prompts.
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
    /// The words that it had.
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

    /// `prompt` with every word as what it stands for. Only whole words, whatever their case: TOK is in `a tok`, not in TOKYO nor
    /// in token. Where several fit, the longest is meant, and of those that differ in case the one that is written so; what
    /// is put in is not looked at again.
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

    /// The word at a byte of the prompt, where `next` stands, and its end.
    fn at(&self, prompt: &str, at: usize, next: char) -> Option<(&Word, usize)> {
        let words = self.0.get(&fold(next).next()?)?;
        let found = words.iter().filter_map(|word| {
            let end = at + prefix(&prompt[at..], &word.folded)?;
            stands_alone(prompt, at..end).then_some((word, end))
        });
        found.max_by_key(|(word, end)| (*end, prompt[at..*end] == *word.text))
    }
}

/// Takes `embedding:` from the end of a prompt; whether there was one.
fn drop_call(prompt: &mut String) -> bool {
    let start = prompt.len().saturating_sub(CALL.len());
    let called = prompt.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(CALL))
        && !prompt[..start].chars().next_back().is_some_and(char::is_alphanumeric);
    if called {
        prompt.truncate(start);
    }
    called
}

/// The embeddings that a prompt still calls, after those that are there were put in their place.
pub(super) fn uncalled(prompt: &str) -> Vec<String> {
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

    /// Protects: a word is replaced in any letter case, as captions are when it is trained; TOKYO and token stay what they
    /// are; punctuation ends a word.
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

    /// Protects: ComfyUI's way to call an embedding is not left in the prompt; one that no file has is named.
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
        assert_eq!(uncalled("embedding:other, a Embedding:B:1.2) embedding: x"), ["other", "B"]);
    }
}
