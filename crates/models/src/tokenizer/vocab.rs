//! The vocabulary and merges of a tokenizer folder, in either of the two forms that transformers writes.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::models::bpe::{Merges, Vocab};

use super::specials::Added;
use super::{TokenizerError, carried};
use crate::json::{located, read_text};

/// The largest file, in bytes. CLIP's files are 1 to 4 MB.
const MAX_BYTES: u64 = 64 << 20;
/// A limit above any vocabulary, and low enough that the ids of added tokens cannot overflow.
const MAX_ID: u32 = 1 << 24;

/// A BPE model's tokens and merges, checked against each other.
pub(super) struct Vocabulary {
    /// The file that errors name.
    pub path: PathBuf,
    pub ids: Vocab,
    pub merges: Merges,
    /// The added tokens of a `tokenizer.json`.
    pub added: Vec<Added>,
}

/// The parts of `tokenizer.json` that vary. The rest of the file is the same for every CLIP tokenizer.
#[derive(Deserialize)]
struct TokenizerFile {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default = "bpe")]
    kind: String,
    vocab: Vocab,
    merges: Vec<Merge>,
}

fn bpe() -> String {
    "BPE".into()
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "two tokens, as a list or with a space between them")]
enum Merge {
    Pair(String, String),
    Text(String),
}

impl Vocabulary {
    pub(super) fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let whole = dir.join("tokenizer.json");
        let found = if whole.is_file() { Self::whole(whole)? } else { Self::pair(dir)? };
        found.check()?;
        Ok(found)
    }

    fn whole(path: PathBuf) -> Result<Self, TokenizerError> {
        let file: TokenizerFile = json(&path)?;
        if file.model.kind != "BPE" {
            let problem = format!("model.type: expected \"BPE\", found {:?}", file.model.kind);
            return Err(TokenizerError::file(&path, problem));
        }
        let pair = |(i, merge): (usize, Merge)| match merge {
            Merge::Pair(a, b) => Ok((a, b)),
            Merge::Text(text) => split(&text).ok_or_else(|| {
                TokenizerError::file(&path, format!("model.merges[{i}]: expected two tokens, found {text:?}"))
            }),
        };
        let merges = file.model.merges.into_iter().enumerate().map(pair).collect::<Result<_, _>>()?;
        Ok(Self { ids: file.model.vocab, merges, added: file.added_tokens, path })
    }

    fn pair(dir: &Path) -> Result<Self, TokenizerError> {
        let (vocab, path) = (dir.join("vocab.json"), dir.join("merges.txt"));
        if !vocab.exists() {
            return Err(TokenizerError::file(
                dir,
                "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt",
            ));
        }
        let ids = json(&vocab)?;
        let text = read_text(&path, MAX_BYTES)?;
        let merges = merges(&path, &text)?;
        Ok(Self { path, ids, merges, added: Vec::new() })
    }

    /// The tables that this library carries. Errors name the file of the model, `path`.
    pub(super) fn carried(path: &Path) -> Result<Self, TokenizerError> {
        let text = carried::merges();
        let ids = carried::tokens(&text).into_iter().zip(0..).collect();
        Ok(Self { path: path.to_path_buf(), ids, merges: merges(path, &text)?, added: Vec::new() })
    }

    /// The `tokenizers` crate relies on merges whose tokens are in the vocabulary.
    fn check(&self) -> Result<(), TokenizerError> {
        if let Some((token, id)) = self.ids.iter().find(|(_, id)| **id >= MAX_ID) {
            let problem = format!("token {token:?}: expected an id below {MAX_ID}, found {id}");
            return Err(TokenizerError::file(&self.path, problem));
        }
        for (i, (a, b)) in self.merges.iter().enumerate() {
            let whole = format!("{a}{b}");
            if let Some(token) = [a, b, &whole].into_iter().find(|t| !self.ids.contains_key(*t)) {
                let problem =
                    format!("merge {i}, {a:?} {b:?}: expected {token:?} in the vocabulary, found none");
                return Err(TokenizerError::file(&self.path, problem));
            }
        }
        Ok(())
    }
}

/// The merges in the text of a `merges.txt`.
fn merges(path: &Path, text: &str) -> Result<Merges, TokenizerError> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let merges = lines.map(|(i, line)| {
        let problem = || format!("line {}: expected two tokens, found {line:?}", i + 1);
        split(line).ok_or_else(|| TokenizerError::file(path, problem()))
    });
    merges.collect()
}

fn split(text: &str) -> Option<(String, String)> {
    let (a, b) = text.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, TokenizerError> {
    let text = read_text(path, MAX_BYTES)?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|e| TokenizerError::file(path, located("", e)))
}
