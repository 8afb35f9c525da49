//! BERT's WordPiece vocabulary, for reading what a network has written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TokenizerError;
use crate::json::{Json, read_text};

/// The largest file, in bytes. BERT's `vocab.txt` has 232 kB, its `tokenizer.json` 712 kB.
const MAX_BYTES: u64 = 64 << 20;
/// Ids that a file may give.
const MAX_ID: u64 = 1 << 24;
/// A piece that continues a word begins with this.
const CONTINUING: &str = "##";
/// Tokens that are no words, by their names in `tokenizer_config.json`, with BERT's own.
const SPECIAL: [(&str, &str); 5] = [
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];
/// What stands behind a blank in tokens, and without one in text.
const JOINED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// The pieces of words by id.
#[derive(Clone, Debug, PartialEq)]
pub struct WordPieces {
    pieces: BTreeMap<u32, String>,
    /// Tokens that are no words.
    special: BTreeSet<String>,
}

impl WordPieces {
    /// Reads `vocab.txt`, which has a piece in each line, or `tokenizer.json`. `tokenizer_config.json`, if it is there, names the tokens
    /// that are no words.
    ///
    /// # Errors
    /// Both files are missing, or a file is invalid.
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let [lines, whole, config] =
            ["vocab.txt", "tokenizer.json", "tokenizer_config.json"].map(|name| folder.join(name));
        let mut found = match (lines.is_file(), whole.is_file()) {
            (true, _) => Self::of_lines(&read_text(&lines, MAX_BYTES)?),
            (false, true) => Self::of_json(whole)?,
            (false, false) => {
                return Err(TokenizerError::file(
                    folder,
                    "no vocabulary: expected vocab.txt or tokenizer.json",
                ));
            }
        };
        if found.pieces.is_empty() {
            return Err(TokenizerError::file(folder, "the vocabulary is empty"));
        }
        let config = if config.is_file() { Json::read(&config)?.value } else { Value::Null };
        for (name, default) in SPECIAL {
            // A name, or an object with the name.
            let given = config[name].as_str().or(config[name]["content"].as_str());
            found.special.insert(given.unwrap_or(default).to_owned());
        }
        Ok(found)
    }

    fn of_lines(text: &str) -> Self {
        let pieces = (0..).zip(text.lines().map(str::to_owned)).collect();
        Self { pieces, special: BTreeSet::new() }
    }

    fn of_json(path: PathBuf) -> Result<Self, TokenizerError> {
        let fail = |problem: String| TokenizerError::file(&path, problem);
        let json = Json::parse(&path, &read_text(&path, MAX_BYTES)?)?.value;
        let kind = json["model"]["type"].as_str().unwrap_or("none");
        if kind != "WordPiece" {
            return Err(fail(format!("model.type: expected \"WordPiece\", found {kind:?}")));
        }
        let vocab = json["model"]["vocab"].as_object();
        let vocab = vocab.ok_or_else(|| fail("model.vocab: expected an object, found none".into()))?;
        let mut found = Self { pieces: BTreeMap::new(), special: BTreeSet::new() };
        let added = json["added_tokens"].as_array().into_iter().flatten();
        let added = added.map(|token| (token["content"].as_str().unwrap_or_default(), &token["id"]));
        for (piece, id) in vocab.iter().map(|(piece, id)| (piece.as_str(), id)).chain(added) {
            let id = id.as_u64().filter(|id| *id < MAX_ID);
            let id = id.ok_or_else(|| fail(format!("{piece:?}: expected an id below {MAX_ID}")))?;
            found.pieces.insert(id as u32, piece.to_owned());
        }
        let special = json["added_tokens"].as_array().into_iter().flatten().filter(|t| t["special"] == true);
        found.special.extend(special.filter_map(|token| token["content"].as_str().map(str::to_owned)));
        Ok(found)
    }

    /// Tokens as text, as transformers decodes them without special tokens: blanks between words and none before marks and what
    /// follows an apostrophe. Ids that are in no file are left out.
    pub fn text(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let pieces = ids.iter().filter_map(|id| self.pieces.get(id));
        for (i, piece) in pieces.filter(|piece| !self.special.contains(*piece)).enumerate() {
            match piece.strip_prefix(CONTINUING) {
                Some(rest) if i > 0 => text.push_str(rest),
                _ => {
                    text.push_str(if i > 0 { " " } else { "" });
                    text.push_str(piece);
                }
            }
        }
        JOINED.iter().fold(text, |text, (apart, joined)| text.replace(apart, joined))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects captions: pieces are glued, marks and contractions stand where they do in text, and what is no word is left out. The
    /// texts are those of transformers (`clean_up_tokenization_spaces=True`).
    #[test]
    fn tokens_as_text() {
        let mut words =
            WordPieces::of_lines("[PAD]\na\ndog\n##s\n##ty\n.\n,\n'\ns\nn't\n!\n?\n's\n're\n[SEP]\n");
        words.special = ["[PAD]", "[SEP]"].map(String::from).into();
        for (ids, text) in [
            (&[99, 1, 2, 3, 5, 1, 2, 4, 6, 14, 0][..], "a dogs. a dogty,"),
            (&[2, 7, 8], "dog's"),
            (&[2, 9, 10, 11], "dogn't!?"),
            (&[1, 12, 2, 13], "a's dog're"),
            (&[3, 1], "##s a"),
            (&[99], ""),
            (&[], ""),
        ] {
            assert_eq!(words.text(ids), text);
        }
    }
}
