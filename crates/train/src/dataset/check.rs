//! Checks that a set can be learnt from, and collects warnings about its captions.

use super::error::list;
use super::{DatasetError, Example};
use calotype_models::shorten;
use calotype_models::tokenizer::CLIP_TOKENS;
use calotype_sdxl::ArgumentError;
use calotype_sdxl::token::{contains_token, find_token};

/// The most characters of a caption whose tokens are counted, far more than those of 77 tokens.
const COUNTED: usize = 8_000;

/// An error if the prefix lacks the token: pictures without a caption of their own would not teach it.
pub(crate) fn prefix(prefix: &str, token: &str) -> Result<(), ArgumentError> {
    if contains_token(prefix, token) {
        return Ok(());
    }
    let expected = format!("the token_string {} in it, as a word of its own", shorten(token));
    Err(ArgumentError::new("caption_prefix", expected, shorten(prefix)))
}

/// An error if `count` prepared pictures with masks need more than `limit` bytes.
pub(super) fn fits(count: usize, resolution: usize, limit: u64) -> Result<(), DatasetError> {
    let bytes = [resolution, resolution, 4].iter().fold(count as u64, |n, &m| n.saturating_mul(m as u64));
    if bytes <= limit { Ok(()) } else { Err(DatasetError::TooManyPictures { count, resolution, limit }) }
}

/// An error if no caption has the token within CLIP's tokens. Warns about captions that lack the token, and about captions that
/// are too long for CLIP.
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
    let mut seen = false;
    for example in examples {
        let (caption, whole) = counted(&example.caption);
        let first = find_token(caption, token).into_iter().next();
        // The tokens up to the end of the word, including start and end.
        let is_seen = first.as_ref().is_some_and(|word| count_tokens(&caption[..word.end]) <= CLIP_TOKENS);
        seen |= is_seen;
        let count = count_tokens(caption);
        if count > CLIP_TOKENS {
            let name = shorten(&example.name);
            let more = if whole { "" } else { "more than " };
            let has_token = first.is_some() || contains_token(&example.caption, token);
            let lost = if has_token && !is_seen {
                format!(
                    ", and {} is not among them: nothing is learnt from this picture for it",
                    shorten(token)
                )
            } else {
                String::new()
            };
            warnings.push(format!(
                "{name}: the caption has {more}{count} tokens, of which {CLIP_TOKENS} count{lost}"
            ));
        }
    }
    if seen { Ok(()) } else { Err(DatasetError::TokenCut { token: shorten(token) }) }
}

/// The beginning of a caption whose tokens are counted, and whether it is the whole caption.
fn counted(caption: &str) -> (&str, bool) {
    match caption.char_indices().nth(COUNTED) {
        Some((end, _)) => (&caption[..end], false),
        None => (caption, true),
    }
}
