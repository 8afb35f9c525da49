//! Training that begins from trained weights.

use std::collections::BTreeSet;

use calotype_tensor::Tensor;

use super::Trainer;
use super::lora;
use super::text::NEW_TOKENS;
use crate::plan::{LoraLayers, Method};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::adapters::TrainedWeights;

/// The setting that names the initial weights.
const NAME: &str = "replicate_weights";

impl Trainer {
    /// Sets every trained parameter to its value in `weights`, before the first step. If `weights` has no embeddings, the
    /// embeddings keep their random values.
    ///
    /// # Errors
    /// The weights come from another training method, have another rank, have a layer that is not trained here, or lack one
    /// that is. Nothing is changed in these cases.
    pub fn begin_from(&mut self, weights: &TrainedWeights) -> Result<(), ArgumentError> {
        self.check_all_train(weights)?;
        for i in 0..self.trained().len() {
            self.initial(weights, i)?;
        }
        for i in 0..self.trained().len() {
            if let Some(value) = self.initial(weights, i)? {
                self.trained()[i].parameter.set_values(&value.to_vec());
            }
        }
        self.resume(0, Vec::new(), |_| {});
        Ok(())
    }

    /// A CRC-32 of the values of all trained parameters.
    pub fn values_crc32(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        for trained in self.trained() {
            crc.update(bytemuck::cast_slice(&trained.parameter.values().to_vec()));
        }
        crc.sum()
    }

    /// Returns an error if the weights have a layer or tensor that is not trained here.
    fn check_all_train(&self, weights: &TrainedWeights) -> Result<(), ArgumentError> {
        let trains: BTreeSet<&str> =
            self.trained().iter().map(|t| t.name.strip_suffix(".down").unwrap_or(&t.name)).collect();
        self.check_lora_layers(weights)?;
        let text = weights.text_lora.iter().flat_map(|lora| lora.keys());
        let mut keys = weights
            .lora
            .keys()
            .chain(weights.unet.keys())
            .chain(weights.other_changes().map(|(key, _)| key))
            .filter(|key| !trains.contains(key.as_str()))
            .chain(text);
        match keys.next() {
            Some(key) => {
                Err(ArgumentError::new(NAME, self.kind(), format!("{key}, which does not train here")))
            }
            None => Ok(()),
        }
    }

    /// Returns an error if LoRA of the attentions alone meets LoRA of all layers.
    fn check_lora_layers(&self, weights: &TrainedWeights) -> Result<(), ArgumentError> {
        let name = |layers| if layers == LoraLayers::All { "all" } else { "attention" };
        let of_attention = weights.lora.keys().all(|path| lora::trains(path, LoraLayers::Attention));
        let theirs = if of_attention { LoraLayers::Attention } else { LoraLayers::All };
        match (self.plan().method, self.plan().options.lora_layers) {
            (Method::Lora { .. }, own) if own != theirs && !weights.lora.is_empty() => {
                let expected = format!("{}, the layers of {NAME}", name(theirs));
                Err(ArgumentError::new("lora_layers", expected, name(own)))
            }
            _ => Ok(()),
        }
    }

    /// The initial value of parameter `i`, in the parameter's shape. `None`: the parameter keeps its random value.
    fn initial(&self, weights: &TrainedWeights, i: usize) -> Result<Option<Tensor>, ArgumentError> {
        let trained = &self.trained()[i];
        let name = trained.name.as_str();
        let lora = |end: &str| name.strip_suffix(end).and_then(|path| weights.lora.get(path));
        let value = match name.strip_prefix("text_encoders_").map(str::parse::<usize>) {
            Some(Ok(encoder)) => match weights.embeddings.as_ref().and_then(|both| both.get(encoder)) {
                Some(embeddings) => embeddings.clone(),
                None => return Ok(None),
            },
            _ => match (lora(".down"), lora(".up"), weights.unet.get(name)) {
                (Some(pair), ..) => pair.down.clone(),
                (_, Some(pair), _) => {
                    let scale = pair.scale() as f32;
                    let values: Vec<f32> = pair.up.f32s().iter().map(|x| x * scale).collect();
                    Tensor::from_slice(&values, pair.up.shape())
                }
                (.., Some(stored)) => stored.to_tensor(),
                _ => return Err(ArgumentError::new(NAME, self.kind(), format!("none for {name}"))),
            },
        };
        // A 1 × 1 convolution is a linear layer, and its LoRA may have either form.
        let larger = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        if larger(value.shape()) == larger(&trained.shape) {
            return Ok(Some(value.reshape(&trained.shape)));
        }
        Err(self.other_shape(weights, name, &trained.shape, value.shape()))
    }

    fn other_shape(
        &self,
        weights: &TrainedWeights,
        name: &str,
        expected: &[usize],
        found: &[usize],
    ) -> ArgumentError {
        let rank = weights.lora.values().next().map(|pair| pair.rank());
        match (self.plan().method, rank) {
            (Method::Lora { rank: own }, Some(rank))
                if rank != own && weights.lora.keys().any(|k| name.starts_with(k.as_str())) =>
            {
                ArgumentError::new("lora_rank", format!("{rank}, the rank of {NAME}"), own.to_string())
            }
            _ => ArgumentError::new(NAME, format!("{name} {expected:?}"), format!("{found:?}")),
        }
    }

    /// The weights that are expected, for an error message.
    fn kind(&self) -> String {
        match self.plan().method {
            Method::Lora { .. } => match self.plan().options.lora_layers {
                LoraLayers::Attention => "LoRA of the UNet's attentions, as this training makes it".into(),
                LoraLayers::All => "LoRA of all of the UNet's layers, as this training makes it".into(),
            },
            Method::Full => "a full fine-tune's tensors of the UNet, as this training makes them".into(),
            Method::TextualInversion => format!("embeddings of {} tokens alone", NEW_TOKENS.len()),
        }
    }
}
