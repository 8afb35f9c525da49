//! An opened model: its configs and tokenizers, and what its networks do in a request.

use calotype_models::weights::store_for;
use calotype_models::{Component, Context, ModelConfigs, ModelFolder, UNet, Weights};
use calotype_tensor::{DType, Tensor, cpu};

use super::guided;
use crate::adapters::Adapters;
use crate::prompt::{PromptEmbeds, PromptEncoder};
use crate::samplers::SchedulerConfig;
use crate::{Error, PredictPlan};

/// The aesthetic scores that a refiner is told, for the prompt and for the negative prompt: diffusers' defaults.
const AESTHETIC_SCORES: [f32; 2] = [6.0, 2.5];

/// The base model or the refiner.
pub(super) struct Model {
    pub folder: ModelFolder,
    pub configs: ModelConfigs,
    pub scheduler: SchedulerConfig,
    prompts: PromptEncoder,
    dtype: DType,
}

impl Model {
    /// Reads configs and tokenizers, but no weights yet.
    pub fn of(folder: ModelFolder, dtype: DType) -> Result<Model, Error> {
        let configs = folder.configs()?;
        let scheduler = SchedulerConfig::open(&folder)?;
        let prompts = PromptEncoder::open(&folder, &configs, dtype)?;
        Ok(Model { folder, configs, scheduler, prompts, dtype })
    }

    /// The embeddings of the negative prompt and the prompt, or without guidance, of the prompt alone. `zeros`: those of an empty
    /// negative prompt are zeros.
    pub fn encode(
        &self,
        adapters: &Adapters,
        [negative, prompt]: [&str; 2],
        plan: &PredictPlan,
        zeros: bool,
    ) -> Result<PromptEmbeds, Error> {
        let guided = guided(plan);
        let zeros = zeros && guided && negative.is_empty();
        let prompts = &[negative, prompt][usize::from(!guided || zeros)..];
        let embeds = self.prompts.encode(&self.folder, adapters, prompts, plan.prompt_syntax)?;
        cpu::trim_pool();
        Ok(if zeros { embeds.after_zeros() } else { embeds })
    }

    /// The dtype that weights are packed in; `None`: that of their file.
    pub fn store(&self) -> Option<DType> {
        store_for(self.dtype)
    }

    /// Opens the denoiser's weights.
    pub fn unet_weights(&self) -> Result<Weights, Error> {
        Ok(self.folder.weights(Component::UNet, None, self.store())?)
    }

    /// The denoiser's conditioning: texts and sizes. With guidance, that of the negative prompt comes first.
    pub fn condition(&self, unet: &UNet, embeds: &PromptEmbeds, plan: &PredictPlan) -> Context {
        let batch = embeds.pooled.dim(0);
        debug_assert_eq!(batch, 1 + usize::from(guided(plan)));
        let (height, width) = (plan.height as f32, plan.width as f32);
        let ids = (0..batch).flat_map(|i| {
            let target = if self.folder.requires_aesthetics_score {
                vec![AESTHETIC_SCORES[batch - 1 - i]]
            } else {
                vec![height, width]
            };
            [vec![height, width, 0.0, 0.0], target].concat()
        });
        let time_ids = Tensor::from_vec(ids.collect(), &[batch, self.folder.time_ids()]);
        unet.prepare(&embeds.hidden.to_dtype(self.dtype), &embeds.pooled, &time_ids)
    }
}
