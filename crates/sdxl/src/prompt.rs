//! Encodes prompts to the embeddings that condition the denoiser.

mod chunks;
mod emphasis;
mod syntax;

use calotype_tensor::{DType, Tensor, ops};

use crate::Error;
use crate::adapters::Adapters;
use calotype_models::config::ClipTextConfig;
use calotype_models::nn::Parameter;
use calotype_models::tokenizer::Tokenizer;
use calotype_models::weights::store_for;
use calotype_models::{ClipTextModel, ClipTextOutput};
use calotype_models::{Component, ModelConfigs, ModelFolder, shorten};

use chunks::{Chunk, Chunks};
pub(crate) use syntax::warn_about_syntax;

/// The embeddings of B prompts.
pub struct PromptEmbeds {
    /// (B, 77 · chunks, C): the penultimate hidden states of the encoders, concatenated.
    pub hidden: Tensor,
    /// (B, P): the pooled and projected state of the second encoder.
    pub pooled: Tensor,
}

impl PromptEmbeds {
    /// The same embeddings, with zeros for one more prompt before them.
    pub(crate) fn after_zeros(&self) -> Self {
        let after = |x: &Tensor| {
            let one = [&[1], &x.shape()[1..]].concat();
            ops::cat_batch(&[&x.device().zeros(&one, x.dtype()), x])
        };
        Self { hidden: after(&self.hidden), pooled: after(&self.pooled) }
    }
}

/// The tokenizers, and the place of the text encoders. The encoders are about a third as large as the denoiser and run for
/// about a second, so each request loads them and drops them.
pub struct PromptEncoder {
    /// Two encoders, or one in the refiner.
    encoders: Vec<TextEncoder>,
    dtype: DType,
}

struct TextEncoder {
    component: Component,
    config: ClipTextConfig,
    tokenizer: Tokenizer,
}

impl PromptEncoder {
    /// Opens a folder's tokenizers.
    ///
    /// # Errors
    /// A file of a tokenizer is missing or invalid.
    pub fn open(folder: &ModelFolder, configs: &ModelConfigs, dtype: DType) -> Result<Self, Error> {
        let first = configs.text_encoder.as_ref().map(|config| (Component::TextEncoder, config));
        let all = first.into_iter().chain([(Component::TextEncoder2, &configs.text_encoder_2)]);
        let encoder = |((component, config), tokenizer): ((Component, &ClipTextConfig), Tokenizer)| {
            TextEncoder { component, config: config.clone(), tokenizer }
        };
        Ok(Self { encoders: all.zip(folder.tokenizers(configs)?).map(encoder).collect(), dtype })
    }

    /// Encodes B prompts, with the new tokens and encoder changes of the request's trained weights. A prompt that exceeds the
    /// encoders' 77 tokens is encoded in chunks, all prompts in as many as the longest one, or its end is cut off; both with a
    /// warning. The pooled state is that of the first chunk.
    ///
    /// # Errors
    /// A file of the model is missing or invalid, or the vocabulary lacks a token of a prompt.
    pub fn encode(
        &self,
        folder: &ModelFolder,
        adapters: &Adapters,
        prompts: &[&str],
        syntax: PromptSyntax,
    ) -> Result<PromptEmbeds, Error> {
        let prompts = adapters.prompts(prompts);
        let tokenized = |encoder| Tokenized::new(encoder, adapters, &prompts, syntax);
        let tokenized = self.encoders.iter().map(tokenized).collect::<Result<Vec<_>, Error>>()?;
        let count = tokenized.iter().map(Tokenized::chunks).max().unwrap_or(1);
        let outputs = tokenized
            .iter()
            .map(|tokenized| self.run(folder, adapters, tokenized, count))
            .collect::<Result<Vec<ClipTextOutput>, Error>>()?;
        let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.penultimate).collect();
        let hidden = ops::concat(&hidden); // (B, 77 · chunks, 768 + 1280)
        let last = outputs.last().expect("a model has a second text encoder");
        Ok(PromptEmbeds { hidden, pooled: last.pooled.clone() })
    }

    /// Encodes B prompts in `count` chunks each.
    fn run(
        &self,
        folder: &ModelFolder,
        adapters: &Adapters,
        tokenized: &Tokenized,
        count: usize,
    ) -> Result<ClipTextOutput, Error> {
        let Tokenized { encoder, tokenizer, new_ids, prompts } = tokenized;
        let weights = folder.weights(encoder.component, None, store_for(self.dtype))?.used_once();
        let weights = weights.with_hook(adapters.patch(encoder.component));
        let projection = encoder.component == Component::TextEncoder2;
        let mut model = ClipTextModel::load(&weights, &encoder.config, projection, self.dtype)?;
        if let Some(embeddings) = adapters.embeddings(encoder.component) {
            model.set_embeddings(new_ids, Parameter::fixed(embeddings.clone()));
            // Each file's tokens get the ids that they would have as the only file, so that the order of the
            // files does not change the pooled state.
            let ids_alone = adapters.indices_in_file().iter().map(|&index| new_ids[index]);
            model.pool_as(new_ids.iter().copied().zip(ids_alone).collect());
        }
        let empty = Chunk::empty(tokenizer);
        let padded = |chunks: &Vec<Chunk>| {
            chunks.iter().chain(std::iter::repeat(&empty)).take(count).cloned().collect::<Vec<_>>()
        };
        Ok(encode_chunks(&model, prompts.iter().map(padded).collect(), empty.clone()))
    }
}

/// The prompts of a request, tokenized for one encoder.
struct Tokenized<'a> {
    encoder: &'a TextEncoder,
    tokenizer: Tokenizer,
    new_ids: Vec<u32>,
    prompts: Vec<Vec<Chunk>>,
}

impl<'a> Tokenized<'a> {
    fn new(
        encoder: &'a TextEncoder,
        adapters: &Adapters,
        prompts: &[String],
        syntax: PromptSyntax,
    ) -> Result<Self, Error> {
        let (tokenizer, new_ids) = encoder.tokenizer.with_tokens(&adapters.token_names())?;
        let own = prompts.iter().map(|prompt| adapters.for_encoder(encoder.component, prompt));
        let split = own.map(|prompt| Ok(chunks::chunks(&tokenizer, &new_ids, &prompt, syntax)?));
        let split = split.collect::<Result<Vec<_>, Error>>()?;
        if encoder.component == Component::TextEncoder2 {
            // Warn once per prompt, for the encoder that every model has.
            split.iter().for_each(|prompt| warn_about_length(prompt, tokenizer.length()));
        }
        let prompts = split.into_iter().map(|prompt| prompt.chunks).collect();
        Ok(Self { encoder, tokenizer, new_ids, prompts })
    }

    /// The chunks of the longest prompt.
    fn chunks(&self) -> usize {
        self.prompts.iter().map(Vec::len).max().unwrap_or(1)
    }
}

/// Encodes prompts of as many chunks each. A token's weight moves its state away from that of the empty prompt at its place, or
/// towards that state: empty + weight · (state − empty), as in ComfyUI and compel.
fn encode_chunks(model: &ClipTextModel, prompts: Vec<Vec<Chunk>>, empty: Chunk) -> ClipTextOutput {
    let (count, length) = (prompts.first().map_or(1, Vec::len), empty.ids.len());
    let chunks: Vec<Chunk> = prompts.into_iter().flatten().collect();
    let mut ids: Vec<Vec<u32>> = chunks.iter().map(|chunk| chunk.ids.clone()).collect();
    let weighted = chunks.iter().any(Chunk::is_weighted);
    if weighted {
        ids.push(empty.ids);
    }
    let output = model.forward(&ids);
    let rows = |x: &Tensor, width: usize| {
        let x = if weighted { apply_weights(x, &chunks) } else { x.clone() };
        x.reshape(&[chunks.len() / count, count * length, width])
    };
    let first: Vec<Tensor> =
        (0..chunks.len()).step_by(count).map(|i| ops::slice_batch(&output.pooled, i, 1)).collect();
    ClipTextOutput {
        penultimate: rows(&output.penultimate, output.penultimate.last_dim()),
        last_hidden_state: output.last_hidden_state,
        pooled: ops::cat_batch(&first.iter().collect::<Vec<_>>()),
    }
}

/// The states of chunks (chunks + 1, 77, C), the last of which is the empty prompt's, with the weights of their tokens:
/// (chunks, 77, C).
fn apply_weights(states: &Tensor, chunks: &[Chunk]) -> Tensor {
    let (length, width) = (states.dim(1), states.dim(2));
    let mut values = states.to_vec();
    let empty = values.split_off(chunks.len() * length * width);
    let weights = chunks.iter().flat_map(|chunk| &chunk.weights);
    for (at, (state, weight)) in values.chunks_mut(width).zip(weights).enumerate() {
        if *weight != 1.0 {
            let base = &empty[at % length * width..][..width];
            state.iter_mut().zip(base).for_each(|(x, base)| *x = base + weight * (*x - base));
        }
    }
    Tensor::from_vec(values, &[chunks.len(), length, width]).to_dtype(states.dtype())
}

/// What becomes of prompts that are longer than the text encoders' 77 tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongPrompts {
    /// They are encoded in chunks of 75 tokens, as in A1111's web UI, ComfyUI and compel.
    #[default]
    Chunk,
    /// Their end is cut off, as in diffusers and in the published system.
    Truncate,
}

/// How prompts are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptSyntax {
    /// Long prompts.
    pub long: LongPrompts,
    /// Whether brackets are weights and `BREAK` begins a chunk, as in A1111's web UI. Otherwise both are text.
    pub weights: bool,
}

fn warn_about_length(prompt: &Chunks, tokens: usize) {
    if let Some(lost) = &prompt.lost {
        let lost = shorten(lost);
        tracing::warn!("the prompt has more than {tokens} tokens; this end of it is ignored: {lost}");
    } else if prompt.is_long {
        let count = prompt.chunks.len();
        tracing::warn!(
            "the prompt has more than {tokens} tokens; it is encoded in {count} chunks of up to {} (--long-prompts truncate cuts it off)",
            tokens - 2
        );
    }
}
