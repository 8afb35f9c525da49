//! Training that begins from trained weights.

use std::collections::BTreeSet;

use calotype_tensor::Tensor;

use super::text::NEW_TOKENS;
use super::{Trainer, lora, shapes};
use crate::Error;
use crate::plan::{LoraLayers, Method, TrainPlan};
use calotype_models::{Component, ModelConfigs, ModelFolder};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::adapters::{LoraPair, Stored, TrainedWeights};

/// The setting that names the initial weights.
const NAME: &str = "replicate_weights";

/// Checks that a training of a model can begin from these weights, before the model is loaded. Only the headers of the UNet's files
/// are read.
///
/// # Errors
/// A file of the UNet is invalid, or as for [`Trainer::begin_from`].
pub fn check_initial(
    folder: &ModelFolder,
    configs: &ModelConfigs,
    plan: &TrainPlan,
    weights: &TrainedWeights,
) -> Result<(), Error> {
    let unet = folder.weights(Component::UNet, None, None)?;
    let mut trained: Vec<_> =
        unet.shapes().flat_map(|(key, shape)| shapes::trained(key, shape, plan)).collect();
    let encoders = configs.text_encoder.iter().chain([&configs.text_encoder_2]);
    let embeddings = encoders
        .enumerate()
        .map(|(i, encoder)| (format!("text_encoders_{i}"), vec![NEW_TOKENS.len(), encoder.hidden_size]));
    trained.extend(embeddings);
    let trained: Vec<_> = trained.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    Ok(Initial { plan, weights }.check(&trained).map_err(calotype_sdxl::Error::from)?)
}

impl Trainer {
    /// Sets every trained parameter to its value in `weights`, before the first step. If `weights` has no embeddings, the
    /// embeddings keep their random values.
    ///
    /// # Errors
    /// The weights come from another training method, have another rank, have a layer that is not trained here, or lack one
    /// that is. Nothing is changed in these cases.
    pub fn begin_from(&mut self, weights: &TrainedWeights) -> Result<(), ArgumentError> {
        let initial = Initial { plan: self.plan(), weights };
        let trained: Vec<_> = self.trained().iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        initial.check(&trained)?;
        for trained in self.trained() {
            if let Some(value) = initial.value(&trained.name)? {
                trained.parameter.set_values(&value.tensor().to_vec());
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
}

/// The weights that a training begins from.
struct Initial<'a> {
    plan: &'a TrainPlan,
    weights: &'a TrainedWeights,
}

/// The initial value of a parameter.
enum Value<'a> {
    Embeddings(&'a Tensor),
    Down(&'a LoraPair),
    Up(&'a LoraPair),
    Stored(&'a Stored),
}

impl Value<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Value::Embeddings(tensor) => tensor.shape(),
            Value::Down(pair) => pair.down.shape(),
            Value::Up(pair) => pair.up.shape(),
            Value::Stored(stored) => stored.shape(),
        }
    }

    fn tensor(&self) -> Tensor {
        match self {
            Value::Embeddings(tensor) => (*tensor).clone(),
            Value::Down(pair) => pair.down.clone(),
            Value::Up(pair) => {
                let scale = pair.scale() as f32;
                let values: Vec<f32> = pair.up.f32s().iter().map(|x| x * scale).collect();
                Tensor::from_slice(&values, pair.up.shape())
            }
            Value::Stored(stored) => stored.to_tensor(),
        }
    }
}

impl<'a> Initial<'a> {
    /// Returns an error if the weights do not suit the parameters with these names and shapes, which are all that are trained.
    fn check(&self, trained: &[(&str, &[usize])]) -> Result<(), ArgumentError> {
        self.check_lora_layers()?;
        self.check_all_train(trained)?;
        // A 1 × 1 convolution is a linear layer, and its LoRA may have either form.
        let larger = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        for &(name, shape) in trained {
            let value = self.value(name)?;
            if let Some(value) = value.filter(|value| larger(value.shape()) != larger(shape)) {
                return Err(self.other_shape(name, shape, value.shape()));
            }
        }
        Ok(())
    }

    /// Returns an error if the weights have a layer or tensor that is not trained here.
    fn check_all_train(&self, trained: &[(&str, &[usize])]) -> Result<(), ArgumentError> {
        let trains: BTreeSet<&str> =
            trained.iter().map(|(name, _)| name.strip_suffix(".down").unwrap_or(name)).collect();
        let weights = self.weights;
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
    fn check_lora_layers(&self) -> Result<(), ArgumentError> {
        let name = |layers| if layers == LoraLayers::All { "all" } else { "attention" };
        let lora = &self.weights.lora;
        let of_attention = lora.keys().all(|path| lora::trains(path, LoraLayers::Attention));
        let theirs = if of_attention { LoraLayers::Attention } else { LoraLayers::All };
        match (self.plan.method, self.plan.options.lora_layers) {
            (Method::Lora { .. }, own) if own != theirs && !lora.is_empty() => {
                let expected = format!("{}, the layers of {NAME}", name(theirs));
                Err(ArgumentError::new("lora_layers", expected, name(own)))
            }
            _ => Ok(()),
        }
    }

    /// The initial value of the parameter of this name. `None`: the parameter keeps its random value.
    fn value(&self, name: &str) -> Result<Option<Value<'a>>, ArgumentError> {
        let weights = self.weights;
        if let Some(Ok(encoder)) = name.strip_prefix("text_encoders_").map(str::parse::<usize>) {
            let embeddings = weights.embeddings.as_ref().and_then(|both| both.get(encoder));
            return Ok(embeddings.map(Value::Embeddings));
        }
        let lora = |end: &str| name.strip_suffix(end).and_then(|path| weights.lora.get(path));
        let found = match (lora(".down"), lora(".up")) {
            (Some(pair), _) => Some(Value::Down(pair)),
            (_, Some(pair)) => Some(Value::Up(pair)),
            _ => weights.unet.get(name).map(Value::Stored),
        };
        let none = || ArgumentError::new(NAME, self.kind(), format!("none for {name}"));
        found.ok_or_else(none).map(Some)
    }

    fn other_shape(&self, name: &str, expected: &[usize], found: &[usize]) -> ArgumentError {
        let lora = &self.weights.lora;
        let rank = lora.values().next().map(|pair| pair.rank());
        match (self.plan.method, rank) {
            (Method::Lora { rank: own }, Some(rank))
                if rank != own && lora.keys().any(|k| name.starts_with(k.as_str())) =>
            {
                ArgumentError::new("lora_rank", format!("{rank}, the rank of {NAME}"), own.to_string())
            }
            _ => ArgumentError::new(NAME, format!("{name} {expected:?}"), format!("{found:?}")),
        }
    }

    /// The weights that are expected, for an error message.
    fn kind(&self) -> String {
        match self.plan.method {
            Method::Lora { .. } => match self.plan.options.lora_layers {
                LoraLayers::Attention => "LoRA of the UNet's attentions, as this training makes it".into(),
                LoraLayers::All => "LoRA of all of the UNet's layers, as this training makes it".into(),
            },
            Method::Full => "a full fine-tune's tensors of the UNet, as this training makes them".into(),
            Method::TextualInversion => format!("embeddings of {} tokens alone", NEW_TOKENS.len()),
        }
    }
}
