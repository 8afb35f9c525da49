//! The captions, encoded for the UNet: in every step while the new tokens' embeddings are trained, and once each afterwards.

use std::collections::HashMap;

use calotype_tensor::{DType, Tensor, ops};

use super::stream::{Purpose, stream};
use crate::Error;
use calotype_models::config::ClipTextConfig;
use calotype_models::nn::{Parameter, Trainable};
use calotype_models::tokenizer::Tokenizer;
use calotype_models::weights::store_for;
use calotype_models::{ClipTextModel, ClipTextOutput};
use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::prompt::PromptEmbeds;
use calotype_sdxl::token::replace_token;

/// The two new tokens that replace the token in captions and prompts.
pub const NEW_TOKENS: [&str; 2] = ["<s0>", "<s1>"];

/// Both text encoders, with the embeddings that are trained.
pub struct Text {
    encoders: Vec<CaptionEncoder>,
    /// Every caption in lower case, with the new tokens in place of the token. The last caption is empty.
    captions: Vec<String>,
    dtype: DType,
    /// The encoded captions, by index, while the embeddings are frozen.
    cache: HashMap<usize, PromptEmbeds>,
}

struct CaptionEncoder {
    model: ClipTextModel,
    /// The token ids of every caption.
    ids: Vec<Vec<u32>>,
    /// The new tokens' embeddings, (2, width).
    new_embeddings: Parameter,
    /// The standard deviation of the encoder's embedding table.
    std: f64,
}

impl Text {
    /// Loads the encoders and initializes the new tokens' embeddings.
    ///
    /// # Errors
    /// A file of the folder is missing or invalid, or the model lacks one of the text encoders.
    pub fn load(
        folder: &ModelFolder,
        configs: &ModelConfigs,
        captions: &[&str],
        token: &str,
        seed: u64,
        dtype: DType,
    ) -> Result<Self, Error> {
        let value = NEW_TOKENS.concat();
        let mut captions: Vec<String> = captions
            .iter()
            .map(|c| replace_token(&c.to_lowercase(), &token.to_lowercase(), &value))
            .collect();
        captions.push(String::new());
        let Some(first) = &configs.text_encoder else {
            let expected = "a model with both text encoders, as SDXL's base model has them, to train";
            return Err(ArgumentError::new("--model", expected, "one without text_encoder").into());
        };
        let parts = [(Component::TextEncoder, first), (Component::TextEncoder2, &configs.text_encoder_2)];
        let mut encoders = Vec::new();
        for (i, ((component, config), tokenizer)) in
            parts.into_iter().zip(folder.tokenizers(configs)?).enumerate()
        {
            let mut encoder = CaptionEncoder::load(folder, component, config, &tokenizer, &captions, dtype)?;
            encoder.init(seed, i as u64);
            encoders.push(encoder);
        }
        Ok(Self { encoders, captions, dtype, cache: HashMap::new() })
    }

    /// The new tokens' embeddings in each encoder, (2, width).
    pub fn embeddings(&self) -> impl Iterator<Item = &Parameter> {
        self.encoders.iter().map(|encoder| &encoder.new_embeddings)
    }

    /// Encodes captions (`None`: the empty prompt). With `trains`, the embeddings are on the tape and nothing is cached.
    pub fn encode(&mut self, captions: &[Option<usize>], trains: bool) -> PromptEmbeds {
        let last = self.captions.len() - 1;
        let captions: Vec<usize> = captions.iter().map(|caption| caption.unwrap_or(last)).collect();
        if trains {
            self.cache.clear();
            return self.run(&captions);
        }
        for &caption in &captions {
            if !self.cache.contains_key(&caption) {
                let PromptEmbeds { hidden, pooled } = self.run(&[caption]);
                let embeds = PromptEmbeds { hidden: hidden.detach(), pooled: pooled.detach() };
                self.cache.insert(caption, embeds);
            }
        }
        let all: Vec<&PromptEmbeds> = captions.iter().map(|caption| &self.cache[caption]).collect();
        PromptEmbeds {
            hidden: ops::cat_batch(&all.iter().map(|e| &e.hidden).collect::<Vec<_>>()),
            pooled: ops::cat_batch(&all.iter().map(|e| &e.pooled).collect::<Vec<_>>()),
        }
    }

    /// Drops the cached encodings. Call this after the embeddings have been changed from outside.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    fn run(&self, captions: &[usize]) -> PromptEmbeds {
        let outputs: Vec<_> = self
            .encoders
            .iter()
            .map(|e| e.model.forward(&captions.iter().map(|&c| e.ids[c].clone()).collect::<Vec<_>>()))
            .collect();
        embeds(&outputs, self.dtype)
    }

    /// Call this after a step. Moves the standard deviation of each encoder's new embeddings a tenth of the way, in logarithms,
    /// to that of the encoder's table.
    pub fn rescale(&self) {
        for encoder in &self.encoders {
            let values = encoder.new_embeddings.get().to_vec();
            let factor = (encoder.std / deviation(&values)).powf(0.1) as f32;
            let values: Vec<f32> = values.iter().map(|x| x * factor).collect();
            encoder.new_embeddings.set_values(&values);
        }
    }
}

/// The embeddings of captions, in `dtype`, from the outputs of all encoders.
pub(crate) fn embeds(outputs: &[ClipTextOutput], dtype: DType) -> PromptEmbeds {
    let hidden: Vec<&Tensor> = outputs.iter().map(|output| &output.penultimate).collect();
    PromptEmbeds {
        hidden: ops::concat(&hidden).to_dtype(dtype), // (B, 77, both widths)
        pooled: outputs[outputs.len() - 1].pooled.clone(),
    }
}

impl CaptionEncoder {
    fn load(
        folder: &ModelFolder,
        component: Component,
        config: &ClipTextConfig,
        tokenizer: &Tokenizer,
        captions: &[String],
        dtype: DType,
    ) -> Result<Self, Error> {
        let (tokenizer, new) = tokenizer.with_tokens(&NEW_TOKENS.map(String::from))?;
        let ids = captions.iter().map(|caption| Ok(tokenizer.encode(caption)?.ids));
        let ids = ids.collect::<Result<Vec<_>, Error>>()?;
        let weights = folder.weights(component, None, store_for(dtype))?;
        let projection = component == Component::TextEncoder2;
        let mut model = ClipTextModel::load(&weights, config, projection, dtype)?;
        let std = deviation(&model.embeddings.token_embedding.to_vec());
        let device = model.embeddings.token_embedding.device();
        let zeros = device.zeros(&[new.len(), config.hidden_size], DType::F32);
        let new_embeddings = Parameter::<Tensor>::new(zeros);
        model.set_embeddings(&new, new_embeddings.clone());
        Ok(Self { model, ids, new_embeddings, std })
    }

    /// Initializes the embeddings with the standard deviation of the table.
    fn init(&mut self, seed: u64, index: u64) {
        let shape = self.new_embeddings.get().shape().to_vec();
        let values = stream(seed, Purpose::Init, index).randn(shape.iter().product());
        let values: Vec<f32> = values.into_iter().map(|x| x * self.std as f32).collect();
        self.new_embeddings.set_values(&values);
    }
}

/// The sample standard deviation (divisor n − 1).
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}
