//! Counts the work and the memory of a training's parts: the real networks run on the meta device, where tensors have no
//! numbers.

use calotype_tensor::meta::{self, Counted};
use calotype_tensor::{DType, Device, Tensor};

use crate::Error;
use crate::plan::{Method, TrainPlan};
use crate::trainer::text::embeds;
use crate::trainer::unet_trainer::loss;
use crate::trainer::{Batch, NEW_TOKENS, TrainerOptions, full, lora};
use calotype_models::config::{ClipTextConfig, UNetConfig};
use calotype_models::nn::{Activations, Parameter};
use calotype_models::tokenizer::CLIP_TOKENS;
use calotype_models::weights::{Weights, store_for};
use calotype_models::{ClipTextModel, Component, ModelConfigs, ModelFolder, UNet, Vae};
use calotype_sdxl::plan::check_size;
use calotype_sdxl::prompt::PromptEmbeds;

/// A model whose networks are loaded onto the meta device.
pub(super) struct Model<'a> {
    folder: &'a ModelFolder,
    configs: ModelConfigs,
    options: TrainerOptions,
    /// The pixels of a picture, per side.
    resolution: usize,
}

impl<'a> Model<'a> {
    /// Reads the configs, for a training that the plan and the options describe.
    ///
    /// # Errors
    /// A config is missing or invalid, or the resolution does not suit the VAE.
    pub(super) fn new(
        folder: &'a ModelFolder,
        plan: &TrainPlan,
        options: TrainerOptions,
    ) -> Result<Self, Error> {
        let (configs, resolution) = (folder.configs()?, plan.resolution);
        check_size("resolution", resolution, configs.vae.scale())?;
        Ok(Self { folder, configs, options, resolution })
    }

    /// The number of values that are kept of each picture: the mean and the log variance of its latents, and its mask.
    pub(super) fn latents(&self) -> usize {
        self.latents_side().pow(2) * (2 * self.configs.vae.latent_channels + 1)
    }

    fn latents_side(&self) -> usize {
        self.resolution / self.configs.vae.scale()
    }

    /// The loss of a batch and its gradients. With `embeddings_train`, the text encoders run too.
    pub(super) fn batch(&self, plan: &TrainPlan, embeddings_train: bool) -> Result<Counted, Error> {
        let mut unet = self.unet()?;
        record(&mut unet, plan);
        let encoders = if embeddings_train { Some(self.encoders(true)?) } else { None };
        let activations = if self.options.recompute { Activations::Recompute } else { Activations::Keep };
        let (config, side, size) = (&self.configs.unet, self.latents_side(), plan.train_batch_size);
        let counted = meta::count(|| {
            let embeds = match &encoders {
                Some(encoders) => encoders.encode(size),
                None => self.embeds(size),
            };
            let loss = loss(&unet, &batch(config, side, self.options.dtype, embeds), activations);
            loss.backward_with(Tensor::meta(&[], DType::F32), &mut |_, _| {});
        });
        Ok(counted.1)
    }

    /// The loss of one example, without gradients.
    pub(super) fn validation(&self) -> Result<Counted, Error> {
        let (config, side) = (&self.configs.unet, self.latents_side());
        Ok(forward(&self.unet()?, &batch(config, side, self.options.dtype, self.embeds(1))))
    }

    /// The encoding of one caption.
    pub(super) fn caption(&self) -> Result<Counted, Error> {
        let encoders = self.encoders(false)?;
        Ok(meta::count(|| encoders.encode(1)).1)
    }

    /// The encoding of one picture.
    pub(super) fn picture(&self) -> Result<Counted, Error> {
        let vae = Vae::load(&self.weights(Component::Vae, None)?, &self.configs.vae)?;
        let image = [1, self.resolution, self.resolution, self.configs.vae.in_channels];
        Ok(meta::count(|| vae.encode(&Tensor::meta(&image, DType::F32))).1)
    }

    fn weights(&self, component: Component, store: Option<DType>) -> Result<Weights, Error> {
        Ok(self.folder.weights(component, None, store)?.on(Device::Meta))
    }

    fn unet(&self) -> Result<UNet, Error> {
        let weights = self.weights(Component::UNet, store_for(self.options.dtype))?;
        Ok(UNet::load(&weights, &self.configs.unet)?)
    }

    fn encoders(&self, train: bool) -> Result<Encoders, Error> {
        let dtype = self.options.dtype;
        let second = (Component::TextEncoder2, &self.configs.text_encoder_2);
        let first = self.configs.text_encoder.as_ref().map(|config| (Component::TextEncoder, config));
        let load = |(component, config): (Component, &ClipTextConfig)| -> Result<ClipTextModel, Error> {
            let weights = self.weights(component, store_for(dtype))?;
            let projection = component == Component::TextEncoder2;
            let mut model = ClipTextModel::load(&weights, config, projection, dtype)?;
            let embeddings = Tensor::meta(&[NEW_TOKENS.len(), config.hidden_size], DType::F32);
            let embeddings = if train { embeddings.var() } else { embeddings };
            model.set_embeddings(&NEW_IDS, Parameter::fixed(embeddings));
            Ok(model)
        };
        let models = first.into_iter().chain([second]).map(load).collect::<Result<_, _>>()?;
        Ok(Encoders { models, tokens: self.tokens(), dtype })
    }

    /// The tokens of a caption.
    fn tokens(&self) -> usize {
        let configs = self.configs.text_encoder.iter().chain([&self.configs.text_encoder_2]);
        configs.map(|config| config.max_position_embeddings).fold(CLIP_TOKENS, usize::min)
    }

    /// The embeddings of captions that have been encoded before.
    fn embeds(&self, captions: usize) -> PromptEmbeds {
        let (width, dtype) = (self.configs.unet.cross_attention_dim, self.options.dtype);
        PromptEmbeds {
            hidden: Tensor::meta(&[captions, self.tokens(), width], dtype),
            pooled: Tensor::meta(&[captions, self.configs.text_encoder_2.projection_dim], dtype),
        }
    }
}

/// The ids of the new tokens. Any ids do: the tokens' embeddings replace those of the table.
const NEW_IDS: [u32; NEW_TOKENS.len()] = [0, 1];

/// The text encoders, with the new tokens' embeddings.
struct Encoders {
    models: Vec<ClipTextModel>,
    tokens: usize,
    dtype: DType,
}

impl Encoders {
    fn encode(&self, captions: usize) -> PromptEmbeds {
        let ids: Vec<u32> = NEW_IDS.into_iter().cycle().take(self.tokens).collect();
        let captions = vec![ids; captions];
        let outputs: Vec<_> = self.models.iter().map(|model| model.forward(&captions)).collect();
        embeds(&outputs, self.dtype)
    }
}

/// Puts what the plan trains of the UNet on the tape.
fn record(unet: &mut UNet, plan: &TrainPlan) {
    match plan.method {
        Method::Lora { rank } => drop(lora::attach(unet, rank, plan.options.lora_layers)),
        Method::Full => drop(full::record(unet)),
        Method::TextualInversion => {}
    }
}

/// A batch of captions with latents of `side` × `side`.
fn batch(config: &UNetConfig, side: usize, dtype: DType, embeds: PromptEmbeds) -> Batch {
    let size = embeds.hidden.dim(0);
    let added = config.projection_class_embeddings_input_dim - embeds.pooled.dim(1);
    let ids = added / config.addition_time_embed_dim;
    let image = |channels, dtype| Tensor::meta(&[size, side, side, channels], dtype);
    Batch {
        sample: image(config.in_channels, dtype),
        timesteps: vec![0.0; size],
        hidden: embeds.hidden,
        pooled: embeds.pooled,
        time_ids: Tensor::meta(&[size, ids], DType::F32),
        target: image(config.out_channels, DType::F32),
        weights: Some(Tensor::meta(&[size, side, side], DType::F32)),
    }
}

/// The loss of a batch, without gradients.
fn forward(unet: &UNet, batch: &Batch) -> Counted {
    meta::count(|| loss(unet, batch, Activations::Keep)).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use calotype_models::weights::Network;
    use calotype_tensor::meta::WorkKind;

    /// The config of SDXL base.
    fn published() -> UNetConfig {
        let config = r#"{
            "_class_name": "UNet2DConditionModel", "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": true
        }"#;
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("config.json"), config).expect("written");
        UNetConfig::read(folder.path()).expect("a config")
    }

    fn unet(config: &UNetConfig) -> UNet {
        UNet::load(&Weights::meta(Network::UNet, DType::F32), config).expect("a UNet")
    }

    /// A batch of one picture.
    fn one(config: &UNetConfig, latent: usize) -> Batch {
        let embeds = PromptEmbeds {
            hidden: Tensor::meta(&[1, CLIP_TOKENS, config.cross_attention_dim], DType::F32),
            pooled: Tensor::meta(&[1, 1280], DType::F32),
        };
        batch(config, latent, DType::F32, embeds)
    }

    /// Protects the count: SDXL base's UNet takes 1.59 TFLOP for a picture of 512 × 512, and 6.76 TFLOP for one of 1024 × 1024.
    #[test]
    fn the_published_unet() {
        let config = published();
        for (latent, expected) in [(64, 1.59e12), (128, 6.76e12)] {
            let flops = forward(&unet(&config), &one(&config, latent)).work.flops();
            assert!((flops / expected - 1.0).abs() < 0.01, "{flops:e}, expected {expected:e}");
        }
    }

    /// Protects what the method and recomputation change: recomputed blocks run forward twice and leave little on the tape, and
    /// only a full fine-tune has gradients of the UNet's own weights.
    #[test]
    fn the_way_back_is_counted() {
        let config = published();
        let step = |method: Method, activations: Activations| {
            let mut unet = unet(&config);
            record(&mut unet, &TrainPlan { method, ..TrainPlan::default() });
            let batch = one(&config, 64);
            meta::count(|| loss(&unet, &batch, activations).backward()).1
        };
        let lora = Method::Lora { rank: 8 };
        let (kept, recomputed) = (step(lora, Activations::Keep), step(lora, Activations::Recompute));
        let more = recomputed.work.flops() / kept.work.flops();
        assert!((1.2..1.7).contains(&more), "{more}");
        assert!(2 * recomputed.peak_bytes < kept.peak_bytes, "{recomputed:?}, kept: {kept:?}");
        let full = step(Method::Full, Activations::Keep).work;
        assert_eq!(kept.work.of(WorkKind::WeightGradient), 0.0);
        assert!(full.of(WorkKind::WeightGradient) > 1.4e12, "{full:?}");
    }
}
