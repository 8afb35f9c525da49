//! Long prompts in chunks that a text encoder takes, by ComfyUI's rule: a chunk is filled to its end, but a short part that has a weight
//! of its own, and the new tokens of a word, begin a chunk rather than be split.

use super::emphasis::Part;
use super::{LongPrompts, PromptSyntax};
use calotype_models::tokenizer::{Tokenizer, TokenizerError};

/// The most chunks of a prompt. The end of a longer prompt is ignored.
const MAX_CHUNKS: usize = 32;
/// The least number of tokens of a part that may be split.
const SPLIT_FROM: usize = 8;

/// The ids of a chunk, with start, end and padding, and the weight of each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunk {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
}

/// A prompt in chunks, and the end that none has.
pub(super) struct Chunks {
    pub chunks: Vec<Chunk>,
    pub lost: Option<String>,
    /// Whether there are more chunks than breaks ask for.
    pub is_long: bool,
}

/// Chunks while they are filled: ids with their weights, without start and end.
struct Filling {
    chunks: Vec<Vec<(u32, f32)>>,
    room: usize,
}

impl Chunk {
    /// A chunk of these tokens.
    fn new(tokenizer: &Tokenizer, tokens: &[(u32, f32)]) -> Self {
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        let ids = tokenizer.framed(&ids);
        let mut weights = vec![1.0; ids.len()];
        weights.iter_mut().skip(1).zip(tokens).for_each(|(weight, (_, own))| *weight = *own);
        Self { ids, weights }
    }

    /// The chunk of an empty prompt.
    pub(super) fn empty(tokenizer: &Tokenizer) -> Self {
        Self::new(tokenizer, &[])
    }

    /// Whether a token has a weight.
    pub(super) fn is_weighted(&self) -> bool {
        self.weights.iter().any(|weight| *weight != 1.0)
    }
}

/// Splits a prompt into chunks. `new_ids` are the ids of new tokens.
pub(super) fn chunks(
    tokenizer: &Tokenizer,
    new_ids: &[u32],
    prompt: &str,
    syntax: PromptSyntax,
) -> Result<Chunks, TokenizerError> {
    let parts = match syntax.weights {
        true => super::emphasis::parse(prompt),
        false => vec![Part::Text(prompt.into(), 1.0)],
    };
    let mut filling = Filling { chunks: vec![Vec::new()], room: tokenizer.length() - 2 };
    for part in &parts {
        match part {
            Part::Break => filling.chunks.push(Vec::new()),
            Part::Text(text, weight) => {
                let ids = tokenizer.tokens(text)?;
                for group in ids.chunk_by(|a, b| new_ids.contains(a) == new_ids.contains(b)) {
                    let whole = group.len() < SPLIT_FROM || new_ids.contains(&group[0]);
                    filling.add(group, *weight as f32, whole);
                }
            }
        }
    }
    let most = if syntax.long == LongPrompts::Truncate { 1 } else { MAX_CHUNKS };
    let breaks = parts.iter().filter(|part| **part == Part::Break).count();
    let is_long = filling.chunks.len() > breaks + 1;
    let kept = filling.chunks.len().min(most);
    let lost: Vec<u32> = filling.chunks.split_off(kept).concat().iter().map(|(id, _)| *id).collect();
    let lost = if lost.is_empty() { None } else { Some(tokenizer.text(&lost)?) };
    Ok(Chunks {
        chunks: filling.chunks.iter().map(|tokens| Chunk::new(tokenizer, tokens)).collect(),
        lost,
        is_long,
    })
}

impl Filling {
    /// Adds tokens. A group that is `whole` is not split, if it has room in a chunk.
    fn add(&mut self, group: &[u32], weight: f32, whole: bool) {
        let used = self.chunks.last().map_or(0, Vec::len);
        if whole && group.len() <= self.room && used + group.len() > self.room {
            self.chunks.push(Vec::new());
        }
        for &id in group {
            if self.chunks.last().is_none_or(|chunk| chunk.len() >= self.room) {
                self.chunks.push(Vec::new());
            }
            if let Some(chunk) = self.chunks.last_mut() {
                chunk.push((id, weight));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the places where a prompt is split: at the end of a chunk, but not within new tokens or a short part.
    #[test]
    fn where_prompts_are_split() {
        let lengths = |groups: &[(usize, bool)]| {
            let mut filling = Filling { chunks: vec![Vec::new()], room: 10 };
            groups.iter().for_each(|(n, whole)| filling.add(&vec![1; *n], 1.0, *whole));
            filling.chunks.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[(10, false)]), [10]);
        assert_eq!(lengths(&[(25, false)]), [10, 10, 5]);
        assert_eq!(lengths(&[(8, false), (3, true), (9, false)]), [8, 10, 2]);
        assert_eq!(lengths(&[(8, false), (2, true)]), [10]);
        assert_eq!(lengths(&[(8, false), (12, true)]), [10, 10], "what no chunk can hold is split");
    }
}
