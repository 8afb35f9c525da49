//! A tokenizer folder's special tokens, read from several files in transformers' order.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::{TokenizerError, carried};
use crate::json::{ConfigError, Json};

pub(super) const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
/// Named tokens, in the order in which transformers adds them, with the defaults of `CLIPTokenizer`.
const NAMED: [(&str, Option<&str>); 7] = [
    ("bos_token", Some("<|startoftext|>")),
    ("eos_token", Some("<|endoftext|>")),
    ("unk_token", Some("<|endoftext|>")),
    ("sep_token", None),
    ("pad_token", Some("<|endoftext|>")),
    ("cls_token", None),
    ("mask_token", None),
];
const MAX_LENGTH: u64 = 1 << 14;

/// The special tokens, and the length of prompts.
pub(super) struct Specials {
    pub bos: String,
    pub eos: String,
    pub unk: String,
    pub pad: String,
    /// All added tokens, in the order in which they are added.
    pub tokens: Vec<AddedToken>,
    /// Tokens of an encoded prompt. `None`: the folder does not give the length.
    pub length: Option<usize>,
}

/// A token as the files describe it. The default of `normalized` depends on the token's kind.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Added {
    #[serde(default)]
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// A named token: its text alone, or with flags.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(untagged, expecting = "a string, or an object with a content")]
enum Token {
    Text(String),
    Full(Added),
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Full(token) => &token.content,
        }
    }

    /// The token to add. Named tokens are special.
    fn added(&self, named: bool) -> AddedToken {
        match self {
            Self::Text(text) => AddedToken::from(text.as_str(), true),
            Self::Full(t) => {
                let special = t.special || named;
                AddedToken::from(t.content.as_str(), special)
                    .single_word(t.single_word)
                    .lstrip(t.lstrip)
                    .rstrip(t.rstrip)
                    .normalized(t.normalized.unwrap_or(!special))
            }
        }
    }
}

impl Specials {
    /// Reads a folder's special tokens. `added` holds the added tokens of the folder's `tokenizer.json`.
    pub(super) fn read(dir: &Path, added: Vec<Added>) -> Result<Self, TokenizerError> {
        let mut config = optional(&dir.join(CONFIG))?;
        let mut by_id: BTreeMap<u32, Added> = BTreeMap::new();
        if !config.value["added_tokens_decoder"].is_null() {
            let decoder: BTreeMap<u32, Added> = config.at("added_tokens_decoder")?;
            by_id.extend(decoder);
        } else {
            config.overlay(optional(&dir.join(MAP))?);
            by_id.extend(legacy(&optional(&dir.join(ADDED))?)?);
            by_id.extend(added.into_iter().map(|token| (token.id, token)));
        }
        Self::of(&config, by_id)
    }

    /// The special tokens of the tokenizer that this library carries. Errors name the file of the model, `path`.
    pub(super) fn carried(path: &Path, pad: &str) -> Result<Self, TokenizerError> {
        Self::of(&Json::parse(path, &carried::config(pad))?, BTreeMap::new())
    }

    fn of(config: &Json, by_id: BTreeMap<u32, Added>) -> Result<Self, TokenizerError> {
        let named = named(config, by_id.values())?;
        let name = |wanted: &str| {
            let found = named.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, token)| token.content().to_owned()).unwrap_or_default()
        };
        Ok(Self {
            bos: name("bos_token"),
            eos: name("eos_token"),
            unk: name("unk_token"),
            pad: name("pad_token"),
            tokens: to_add(by_id.into_values().collect(), &named, extra(config)?),
            length: length(config)?,
        })
    }
}

/// A JSON file of the folder; an empty object if the file does not exist.
fn optional(path: &Path) -> Result<Json, ConfigError> {
    if path.exists() { Json::read(path) } else { Json::parse(path, "{}") }
}

/// The named tokens. A named token that is also an added token has the added token's flags.
fn named<'a>(
    config: &Json,
    added: impl Iterator<Item = &'a Added> + Clone,
) -> Result<Vec<(&'static str, Token)>, ConfigError> {
    let mut named = Vec::new();
    for (name, default) in NAMED {
        let token = match (&config.value[name], default) {
            (Value::Null, None) => continue,
            (Value::Null, Some(text)) => Token::Text(text.into()),
            _ => config.at(name)?,
        };
        let full = added.clone().find(|a| a.content == token.content());
        named.push((name, full.cloned().map_or(token, Token::Full)));
    }
    Ok(named)
}

/// `added_tokens.json` of older versions of transformers: a map from text to id.
fn legacy(file: &Json) -> Result<BTreeMap<u32, Added>, ConfigError> {
    let ids: BTreeMap<String, u32> = file.to()?;
    let plain = |(content, id): (String, u32)| {
        let token = Added {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: None,
            special: false,
        };
        (id, token)
    };
    Ok(ids.into_iter().map(plain).collect())
}

/// Special tokens without names.
fn extra(config: &Json) -> Result<Vec<Token>, ConfigError> {
    match ["extra_special_tokens", "additional_special_tokens"]
        .into_iter()
        .find(|f| config.value[*f].is_array())
    {
        Some(field) => config.at(field),
        None => Ok(Vec::new()),
    }
}

/// The tokens that transformers passes to `add_tokens`. A later entry with the same text changes the flags of an earlier one.
fn to_add(added: Vec<Added>, named: &[(&'static str, Token)], extra: Vec<Token>) -> Vec<AddedToken> {
    let known: Vec<String> = added.iter().map(|token| token.content.clone()).collect();
    let mut tokens: Vec<Token> = added.into_iter().map(Token::Full).collect();
    for token in named.iter().map(|(_, token)| token).chain(&extra) {
        if !known.iter().any(|k| k == token.content()) && !tokens.contains(token) {
            tokens.push(token.clone());
        }
    }
    let has_name = |token: &Token| named.iter().any(|(_, n)| n.content() == token.content());
    tokens.iter().map(|token| token.added(has_name(token))).collect()
}

/// `model_max_length`. `None` if it is absent or 10³⁰, which transformers writes for «not given».
fn length(config: &Json) -> Result<Option<usize>, ConfigError> {
    match &config.value["model_max_length"] {
        Value::Null => Ok(None),
        Value::Number(n) if n.as_f64().is_some_and(|n| n > 1e9) => Ok(None),
        other => match other.as_u64().filter(|n| (3..=MAX_LENGTH).contains(n)) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(config.fail("model_max_length", format!("3 to {MAX_LENGTH}"), other)),
        },
    }
}
