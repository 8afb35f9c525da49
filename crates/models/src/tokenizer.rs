//! CLIP's byte-level BPE, equal to transformers' `CLIPTokenizer`. Reads tokenizer folders of transformers 4 and 5, with the
//! special tokens that the folder names.

mod carried;
mod specials;
mod vocab;
mod word_pieces;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{self, Lowercase, NFC, Replace, replace::ReplacePattern};
use tokenizers::pre_tokenizers::{self, split::Split, split::SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::json::ConfigError;
use crate::message::shorten;
pub use carried::{TokenizerFile, files as carried_files};
use specials::Specials;
use vocab::Vocabulary;
pub use word_pieces::WordPieces;

/// CLIP's words: special tokens, English contractions, runs of letters, single digits, runs of other characters.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const WORD_END: &str = "</w>";
/// CLIP's prompt length in tokens, including start and end.
pub const CLIP_TOKENS: usize = 77;
/// The number of tokens of CLIP's tokenizer.
pub const CLIP_VOCABULARY: usize = 49408;

/// The most bytes of a text that are tokenized. No encoder takes as many tokens as these make.
const MAX_TEXT: usize = 256 << 10;

/// A problem of a tokenizer folder, or of a prompt for its encoder.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A JSON file of the folder is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file is missing, unreadable or invalid.
    #[error("{path}: {problem}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The text encoder has no embedding for a token.
    #[error(
        "{path}: token {token:?}: expected an id below {vocab_size} (the text encoder's vocab_size), found {id}"
    )]
    Vocabulary {
        /// The tokenizer's folder.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the encoder's token embedding table.
        vocab_size: usize,
    },
}

impl TokenizerError {
    fn file(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_path_buf(), problem: shorten(&problem.to_string()) }
    }
}

/// A tokenized prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Start, the prompt's tokens, end, padding. The length is always that of the tokenizer (77).
    pub ids: Vec<u32>,
    /// The end of the prompt, if it was cut off because the prompt was too long.
    pub truncated: Option<String>,
}

/// A tokenizer of a model folder.
#[derive(Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    length: Option<usize>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Loads a tokenizer folder: `tokenizer.json`, or `vocab.json` and `merges.txt`. Special tokens come from
    /// `tokenizer_config.json` and `special_tokens_map.json`, if these files exist.
    ///
    /// # Errors
    /// A file is missing or invalid. The error names the file, and what was expected and found.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        let mut vocabulary = Vocabulary::read(dir)?;
        let specials = Specials::read(dir, std::mem::take(&mut vocabulary.added))?;
        Self::new(dir, vocabulary, specials)
    }

    /// CLIP's tokenizer as it came with SDXL, from tables that this library carries. `pad` is the token of the padding. Errors
    /// name the file of the model, `path`.
    pub(crate) fn carried(path: &Path, pad: &str) -> Result<Self, TokenizerError> {
        Self::new(path, Vocabulary::carried(path)?, Specials::carried(path, pad)?)
    }

    fn new(dir: &Path, vocabulary: Vocabulary, specials: Specials) -> Result<Self, TokenizerError> {
        let fail = |e: tokenizers::Error| TokenizerError::file(&vocabulary.path, e);
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary.ids, vocabulary.merges)
            .unk_token(specials.unk.clone())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix(WORD_END.into())
            // The library's cache belongs to a thread, and keeps the words of each tokenizer that there ever was.
            .cache_capacity(0)
            .build()
            .map_err(fail)?;
        let inner = clip(bpe, specials.tokens).map_err(fail)?;
        let id = |token: &str| {
            inner.token_to_id(token).ok_or_else(|| TokenizerError::file(dir, format!("no token {token:?}")))
        };
        let (bos, eos, pad) = (id(&specials.bos)?, id(&specials.eos)?, id(&specials.pad)?);
        let length = specials.length;
        Ok(Self { path: dir.to_path_buf(), inner, bos, eos, pad, length, vocab_size: usize::MAX })
    }

    /// Sets the limits of the text encoder: the rows of its token embedding and of its position embedding.
    ///
    /// # Errors
    /// The tokenizer's own length is more than the encoder's positions.
    pub fn for_encoder(mut self, vocab_size: usize, positions: usize) -> Result<Self, TokenizerError> {
        let length = *self.length.get_or_insert(positions);
        if length > positions {
            return Err(self.wrong_length(format!(
                "expected at most {positions} (the text encoder's max_position_embeddings), found {length}"
            )));
        }
        self.vocab_size = vocab_size;
        Ok(self)
    }

    /// The error of a length that does not fit; `problem` describes why.
    pub(crate) fn wrong_length(&self, problem: String) -> TokenizerError {
        TokenizerError::file(&self.path.join(specials::CONFIG), format!("model_max_length: {problem}"))
    }

    /// The tokenizer with added tokens, and their ids, as transformers' `add_tokens` makes them. New tokens have ids after the
    /// vocabulary; known tokens keep their ids.
    ///
    /// # Errors
    /// A new id is beyond the rows of the text encoder's table, after a row has been added for each new token.
    pub fn with_tokens(&self, tokens: &[String]) -> Result<(Self, Vec<u32>), TokenizerError> {
        let fail = |e: tokenizers::Error| TokenizerError::file(&self.path, e);
        let mut more = self.clone();
        let added = tokens.iter().map(|token| tokenizers::AddedToken::from(token.as_str(), false));
        more.inner.add_tokens(added).map_err(fail)?;
        let ids: Vec<u32> = tokens.iter().filter_map(|token| more.inner.token_to_id(token)).collect();
        for (token, &id) in tokens.iter().zip(&ids) {
            if id as usize > more.vocab_size {
                return Err(more.no_embedding(id, token.clone()));
            }
            more.vocab_size = more.vocab_size.max(id as usize + 1);
        }
        Ok((more, ids))
    }

    fn no_embedding(&self, id: u32, token: String) -> TokenizerError {
        TokenizerError::Vocabulary { path: self.path.clone(), token, id, vocab_size: self.vocab_size }
    }

    /// The number of ids of an encoded prompt (77).
    pub fn length(&self) -> usize {
        self.length.unwrap_or(CLIP_TOKENS) // if the folder gives no length
    }

    /// Encodes a prompt. A prompt that is too long is cut at its end, as in diffusers; [`Encoding::truncated`] holds the part
    /// that was cut off.
    ///
    /// # Errors
    /// The vocabulary has no token for a part of the prompt, or the text encoder has no embedding for an id.
    pub fn encode(&self, prompt: &str) -> Result<Encoding, TokenizerError> {
        let encoded = self.encode_whole(prompt)?;
        let room = self.length() - 2;
        let (kept, cut) = encoded.get_ids().split_at(room.min(encoded.get_ids().len()));
        let ids = self.framed(kept);
        self.check_known(&ids)?;
        let truncated = if cut.is_empty() { None } else { Some(self.text(cut)?) };
        Ok(Encoding { ids, truncated })
    }

    /// All tokens of a text's first [`MAX_TEXT`] bytes, without start and end.
    ///
    /// # Errors
    /// The vocabulary has no token for a part of the text, or the text encoder has no embedding for an id.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode_whole(text)?.get_ids().to_vec();
        self.check_known(&ids)?;
        self.check_known(&self.framed(&[]))?;
        Ok(ids)
    }

    /// Tokens with start, end and padding, at most [`Self::length`] less two of them.
    pub fn framed(&self, tokens: &[u32]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.length());
        ids.push(self.bos);
        ids.extend_from_slice(tokens);
        ids.push(self.eos);
        ids.resize(self.length(), self.pad);
        ids
    }

    fn check_known(&self, ids: &[u32]) -> Result<(), TokenizerError> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(&id) => Err(self.no_embedding(id, self.inner.id_to_token(id).unwrap_or_default())),
            None => Ok(()),
        }
    }

    /// Counts the tokens of a prompt, including start and end, even if they are too many. Only the first
    /// [`MAX_TEXT`] bytes of a text are counted.
    ///
    /// # Errors
    /// The vocabulary has no token for a part of the prompt.
    pub fn count(&self, prompt: &str) -> Result<usize, TokenizerError> {
        Ok(self.encode_whole(prompt)?.get_ids().len() + 2)
    }

    /// All tokens of the first [`MAX_TEXT`] bytes of a prompt.
    fn encode_whole(&self, prompt: &str) -> Result<tokenizers::Encoding, TokenizerError> {
        let prompt = beginning(prompt);
        self.inner.encode_fast(&*prompt, false).map_err(|e| TokenizerError::file(&self.path, e))
    }

    /// Decodes tokens to readable text. The text may differ from the prompt in case and spaces.
    ///
    /// # Errors
    /// The vocabulary does not have a token.
    pub fn text(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.inner.decode(ids, false).map_err(|e| TokenizerError::file(&self.path, e))?;
        Ok(text.replace(WORD_END, " ").trim().to_owned())
    }
}

/// The first [`MAX_TEXT`] bytes of a text, with runs of whitespace as one space. No encoder takes the tokens after them.
fn beginning(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    for word in text.split_whitespace() {
        let room = MAX_TEXT - kept.len();
        let end = (0..=word.len().min(room)).rev().find(|&end| word.is_char_boundary(end)).unwrap_or(0);
        kept.push_str(&word[..end]);
        if kept.len() >= MAX_TEXT || end < word.len() {
            break;
        }
        kept.push(' ');
    }
    Cow::Owned(kept)
}

/// The steps before and after the BPE, as in `CLIPTokenizer`.
fn clip(bpe: BPE, specials: Vec<tokenizers::AddedToken>) -> tokenizers::Result<tokenizers::Tokenizer> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizer = normalizers::Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let pre_tokenizer = pre_tokenizers::sequence::Sequence::new(vec![words.into(), bytes.into()]);
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    tokenizer
        .with_normalizer(Some(NormalizerWrapper::Sequence(normalizer)))?
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(pre_tokenizer)))
        .with_decoder(Some(ByteLevel::default()));
    tokenizer.add_tokens(specials)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects long texts: only the beginning is tokenized, whatever the text consists of, and nothing of a reasonable text is
    /// left out.
    #[test]
    fn only_the_beginning_of_a_long_text_counts() {
        assert_eq!(beginning(" a  cat "), " a  cat ");
        let spaces = format!("a{}cat", " ".repeat(2 * MAX_TEXT));
        assert_eq!(beginning(&spaces).split_whitespace().collect::<Vec<_>>(), ["a", "cat"]);
        for text in ["猫".repeat(MAX_TEXT), "a b ".repeat(MAX_TEXT)] {
            let kept = beginning(&text);
            assert!((MAX_TEXT - 3..=MAX_TEXT).contains(&kept.len()) && text.starts_with(&*kept));
        }
    }
}
