//! What makes a set useless to train on, and what a user should know about its captions.

use super::error::list;
use super::{DatasetError, Example, contains_token};
use crate::config::shorten;
use crate::request::InputError;
use crate::tokenizer::CLIP_TOKENS;

/// An error unless the prefix has the token: pictures without a caption would teach it nothing.
pub(crate) fn prefix(prefix: &str, token: &str) -> Result<(), InputError> {
    if contains_token(prefix, token) {
        return Ok(());
    }
    let expected = format!("the token_string {} in it, as a word of its own", shorten(token));
    Err(InputError::value("caption_prefix", expected, shorten(prefix)))
}

/// An error unless `count` prepared pictures with masks fit into `limit` bytes.
pub(super) fn fits(count: usize, resolution: usize, limit: u64) -> Result<(), DatasetError> {
    let bytes = [resolution, resolution, 4].iter().fold(count as u64, |n, &m| n.saturating_mul(m as u64));
    if bytes <= limit { Ok(()) } else { Err(DatasetError::TooManyPictures { count, resolution, limit }) }
}

/// An error where no caption has the token; warnings where some have not, and of captions too long for CLIP.
pub(super) fn captions(
    examples: &[Example],
    token: &str,
    count_tokens: &dyn Fn(&str) -> usize,
    warnings: &mut Vec<String>,
) -> Result<(), DatasetError> {
    let without: Vec<&str> =
        examples.iter().filter(|e| !contains_token(&e.caption, token)).map(|e| e.name.as_str()).collect();
    if without.len() == examples.len() {
        return Err(DatasetError::NoToken { token: shorten(token) });
    }
    if !without.is_empty() {
        warnings.push(format!("{} is not in the caption of {}", shorten(token), list(&without)));
    }
    for example in examples {
        let count = count_tokens(&example.caption);
        if count > CLIP_TOKENS {
            let name = shorten(&example.name);
            warnings.push(format!("{name}: the caption has {count} tokens, of which {CLIP_TOKENS} count"));
        }
    }
    Ok(())
}
