//! Prompts to the embeddings that condition the denoiser.

mod syntax;

use calotype_tensor::{DType, Tensor, ops};

use crate::Error;
use crate::adapters::Adapters;
use calotype_models::config::ClipTextConfig;
use calotype_models::nn::Parameter;
use calotype_models::tokenizer::{Encoding, Tokenizer};
use calotype_models::{ClipTextModel, ClipTextOutput};
use calotype_models::{Component, ModelConfigs, ModelFolder, shorten};

pub(crate) use syntax::warn_about_syntax;

/// What the text encoders make of B prompts.
pub struct PromptEmbeds {
    /// (B, 77, C): the encoders' penultimate hidden states, side by side.
    pub hidden: Tensor,
    /// (B, P): the second encoder's projection of the whole text.
    pub pooled: Tensor,
}

impl PromptEmbeds {
    /// The same, with zeros for one more prompt before them.
    pub(crate) fn after_zeros(&self) -> Self {
        let after = |x: &Tensor| {
            let one = [&[1], &x.shape()[1..]].concat();
            ops::cat_batch(&[&Tensor::zeros(&one, x.dtype()), x])
        };
        Self { hidden: after(&self.hidden), pooled: after(&self.pooled) }
    }
}

/// The tokenizers and where to find the encoders. These are as large as half the denoiser and work a second, so they
/// are loaded for each request and dropped.
pub struct PromptEncoder {
    /// One, in the refiner, or two.
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
    /// A tokenizer's files are not what they should be.
    pub fn open(folder: &ModelFolder, configs: &ModelConfigs, dtype: DType) -> Result<Self, Error> {
        let first = configs.text_encoder.as_ref().map(|config| (Component::TextEncoder, config));
        let all = first.into_iter().chain([(Component::TextEncoder2, &configs.text_encoder_2)]);
        let encoder = |((component, config), tokenizer): ((Component, &ClipTextConfig), Tokenizer)| {
            TextEncoder { component, config: config.clone(), tokenizer }
        };
        Ok(Self { encoders: all.zip(folder.tokenizers(configs)?).map(encoder).collect(), dtype })
    }

    /// Encodes B prompts, with the request's trained weights: new tokens, and what is changed in the encoders. What
    /// does not fit into the encoders' 77 tokens is cut off, with a warning.
    ///
    /// # Errors
    /// A checkpoint file is not what it should be.
    pub fn encode(
        &self,
        folder: &ModelFolder,
        adapters: &Adapters,
        prompts: &[&str],
    ) -> Result<PromptEmbeds, Error> {
        let prompts = adapters.prompts(prompts);
        let outputs: Vec<ClipTextOutput> = self
            .encoders
            .iter()
            .map(|encoder| self.run(folder, adapters, encoder, &prompts))
            .collect::<Result<_, _>>()?;
        let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.penultimate).collect();
        let hidden = ops::concat(&hidden); // (B, 77, 768 + 1280)
        let last = outputs.last().expect("a model has a second text encoder");
        Ok(PromptEmbeds { hidden, pooled: last.pooled.clone() })
    }

    fn run(
        &self,
        folder: &ModelFolder,
        adapters: &Adapters,
        encoder: &TextEncoder,
        prompts: &[String],
    ) -> Result<ClipTextOutput, Error> {
        let (tokenizer, new_ids) = encoder.tokenizer.with_tokens(&adapters.token_names())?;
        let encoded = prompts.iter().map(|prompt| Ok(tokenizer.encode(prompt)?));
        let encoded = encoded.collect::<Result<Vec<_>, Error>>()?;
        if encoder.component == Component::TextEncoder2 {
            // Once, of the encoder that every model has.
            encoded.iter().for_each(|prompt| warn_about_length(prompt, tokenizer.length()));
        }
        let ids: Vec<_> = encoded.into_iter().map(|prompt| prompt.ids).collect();
        let store = (self.dtype == DType::BF16).then_some(DType::BF16);
        let weights = folder.weights(encoder.component, None, store)?.used_once();
        let weights = weights.with_hook(adapters.patch(encoder.component));
        let projection = encoder.component == Component::TextEncoder2;
        let mut model = ClipTextModel::load(&weights, &encoder.config, projection, self.dtype)?;
        if let Some(rows) = adapters.rows(encoder.component) {
            model.set_embeddings(&new_ids, Parameter::fixed(rows.clone()));
            // As if each file were the only one: which of them comes first must not show in the pooled state.
            let as_first = adapters.places().iter().map(|&place| new_ids[place]);
            model.pool_as(new_ids.iter().copied().zip(as_first).collect());
        }
        Ok(model.forward(&ids))
    }
}

fn warn_about_length(prompt: &Encoding, tokens: usize) {
    if let Some(lost) = &prompt.truncated {
        let lost = shorten(lost);
        tracing::warn!("the prompt has more than {tokens} tokens; this end of it is ignored: {lost}");
    }
}
