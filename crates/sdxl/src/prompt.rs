//! Encodes prompts to the embeddings that condition the denoiser.

mod syntax;

use calotype_tensor::{DType, Tensor, ops};

use crate::Error;
use crate::adapters::Adapters;
use calotype_models::config::ClipTextConfig;
use calotype_models::nn::Parameter;
use calotype_models::tokenizer::{Encoding, Tokenizer};
use calotype_models::weights::store_for;
use calotype_models::{ClipTextModel, ClipTextOutput};
use calotype_models::{Component, ModelConfigs, ModelFolder, shorten};

pub(crate) use syntax::warn_about_syntax;

/// The embeddings of B prompts.
pub struct PromptEmbeds {
    /// (B, 77, C): the penultimate hidden states of the encoders, concatenated.
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

    /// Encodes B prompts, with the new tokens and encoder changes of the request's trained weights. The end of a prompt that
    /// exceeds the encoders' 77 tokens is cut off, with a warning.
    ///
    /// # Errors
    /// A file of the model is missing or invalid, or the vocabulary lacks a token of a prompt.
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
        let own = prompts.iter().map(|prompt| adapters.for_encoder(encoder.component, prompt));
        let encoded = own.map(|prompt| Ok(tokenizer.encode(&prompt)?));
        let encoded = encoded.collect::<Result<Vec<_>, Error>>()?;
        if encoder.component == Component::TextEncoder2 {
            // Warn once per prompt, for the encoder that every model has.
            encoded.iter().for_each(|prompt| warn_about_length(prompt, tokenizer.length()));
        }
        let ids: Vec<_> = encoded.into_iter().map(|prompt| prompt.ids).collect();
        let weights = folder.weights(encoder.component, None, store_for(self.dtype))?.used_once();
        let weights = weights.with_hook(adapters.patch(encoder.component));
        let projection = encoder.component == Component::TextEncoder2;
        let mut model = ClipTextModel::load(&weights, &encoder.config, projection, self.dtype)?;
        if let Some(embeddings) = adapters.embeddings(encoder.component) {
            model.set_embeddings(&new_ids, Parameter::fixed(embeddings.clone()));
            // Each file's tokens get the ids that they would have as the only file, so that the order of the
            // files does not change the pooled state.
            let ids_alone = adapters.indices_in_file().iter().map(|&index| new_ids[index]);
            model.pool_as(new_ids.iter().copied().zip(ids_alone).collect());
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
