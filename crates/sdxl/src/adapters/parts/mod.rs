//! The parts that a file stores for one layer, put together to a change of the layer's weight and bias. Shapes are checked.

mod lora;
mod lycoris;

use std::collections::BTreeMap;

use calotype_tensor::{Tensor, ops};

use super::Modules;
use super::change::{Change, Form, LoraPair, Magnitude};
use super::key::Part;
use super::peft::PeftConfig;
use super::values::shape_problem;
use calotype_models::Component;
use calotype_models::weights::tuple;

/// The parts of one layer, with their keys.
#[derive(Default)]
pub(super) struct Parts(BTreeMap<Part, (String, Tensor)>);

/// A layer of a model, or of a file that is read without a model.
pub(super) struct Layer<'a> {
    pub component: Component,
    pub path: &'a str,
    pub modules: Option<&'a Modules>,
    pub peft: &'a PeftConfig,
}

/// What the parts of one layer make.
pub(super) struct Found {
    /// Plain LoRA.
    pub lora: Option<LoraPair>,
    /// Another change of the weight.
    pub weight: Option<Change>,
    pub bias: Option<Change>,
}

/// A key, and what is wrong with its tensor.
pub(super) type Problem = (String, String);

impl Parts {
    /// Adds a part. Returns the key of an earlier one of this kind.
    pub(super) fn insert(&mut self, part: Part, key: &str, tensor: Tensor) -> Option<String> {
        self.0.insert(part, (key.into(), tensor)).map(|(key, _)| key)
    }

    /// Puts the parts together.
    pub(super) fn found(mut self, layer: &Layer) -> Result<Found, Problem> {
        let kind = self.kind(layer)?;
        let difference = self.bias_difference(layer)?;
        let Some(kind) = kind else { return Ok(Found { lora: None, weight: None, bias: difference }) };
        let up_bias = self.0.remove(&Part::UpBias);
        let magnitude = self.magnitude(kind, layer)?;
        let form = match kind {
            "LoRA" => Form::LowRank(self.lora(layer)?),
            "LoHa" => Form::Hadamard(self.hadamard(layer)?),
            "LoKr" => Form::Kronecker(self.kronecker(layer)?),
            "OFT" => Form::Rotation(self.rotation(layer)?),
            _ => Form::Full(self.difference(layer)?),
        };
        let bias = match (up_bias, &form) {
            (Some((key, bias)), Form::LowRank(pair)) => {
                let scaled = ops::scale(&bias, pair.scale() as f32);
                let bias = Some(layer.full_bias(&key, scaled)?);
                if difference.is_some() {
                    Err((key, "beside another difference of the bias".into()))
                } else {
                    Ok(bias)
                }
            }
            _ => Ok(difference),
        }?;
        Ok(match form {
            Form::LowRank(pair) if magnitude.is_none() => Found { lora: Some(pair), weight: None, bias },
            form => Found { lora: None, weight: Some(Change { form, magnitude }), bias },
        })
    }

    /// The one kind of adapter that the parts belong to. `None`: the bias alone changes.
    fn kind(&self, layer: &Layer) -> Result<Option<&'static str>, Problem> {
        let mut kinds = self.0.iter().filter_map(|(part, (key, _))| Some((kind(*part)?, key)));
        let Some((first, first_key)) = kinds.next() else {
            let alone = self.0.iter().find(|(part, _)| **part != Part::BiasDifference);
            return match alone {
                None => Ok(None),
                Some((Part::Alpha, (key, _))) => Err((key.clone(), "without its down and up weights".into())),
                Some((_, (key, _))) => Err((key.clone(), "without the weights that it belongs to".into())),
            };
        };
        match kinds.find(|(kind, _)| *kind != first) {
            Some((second, key)) => {
                Err((key.clone(), format!("{second} beside {first} of the same layer, {first_key}")))
            }
            None if layer.modules.is_none() && first != "LoRA" => {
                Err((first_key.clone(), format!("{first} {NEEDS_MODEL}")))
            }
            None => Ok(Some(first)),
        }
    }

    /// The alpha of a layer of this rank: in the file, by PEFT's config, or the rank.
    fn alpha(&mut self, layer: &Layer, rank: usize) -> Result<f32, Problem> {
        if let Some((_, alpha)) = self.0.remove(&Part::Alpha) {
            return Ok(alpha.f32s().first().copied().unwrap_or_default());
        }
        let configured = layer.peft.alpha(layer.component, layer.path, rank);
        Ok(configured.map_err(|problem| (layer.path.into(), problem))?.unwrap_or(rank as f32))
    }

    /// Takes a part that must be there.
    fn need(&mut self, part: Part, what: &str) -> Result<(String, Tensor), Problem> {
        self.0.remove(&part).ok_or_else(|| {
            let key = self.0.values().next().map_or_else(String::new, |(key, _)| key.clone());
            (key, format!("without {what}"))
        })
    }

    /// Checks that every part has been used.
    fn none_left(self) -> Result<(), Problem> {
        match self.0.into_values().next() {
            None => Ok(()),
            Some((key, _)) => Err((key, "does not go with the other tensors of its layer".into())),
        }
    }

    /// DoRA's magnitudes.
    fn magnitude(&mut self, kind: &str, layer: &Layer) -> Result<Option<Magnitude>, Problem> {
        let (key, tensor, vector) =
            match (self.0.remove(&Part::DoraScale), self.0.remove(&Part::MagnitudeVector)) {
                (None, None) => return Ok(None),
                (Some((key, tensor)), None) => (key, tensor, false),
                (None, Some((key, tensor))) => (key, tensor, true),
                (Some((key, _)), Some((other, _))) => {
                    return Err((key, format!("of the same layer as {other}")));
                }
            };
        if !["LoRA", "LoHa", "LoKr"].contains(&kind) {
            return Err((key, format!("magnitudes (DoRA) do not go with {kind}")));
        }
        let shape = layer.weight(&key, "DoRA")?;
        let (outputs, inputs, count) = (shape[0], shape[1], tensor.numel());
        let of_outputs = count == outputs && (vector || tensor.shape().first() == Some(&outputs));
        let of_inputs = !vector && count == inputs && tensor.shape().get(1) == Some(&inputs);
        if !(of_outputs || of_inputs) {
            let expected = match vector {
                true => format!("({outputs})"),
                false => format!("({outputs}, 1) or (1, {inputs})"),
            };
            return Err((key, shape_problem(&expected, &tensor)));
        }
        Ok(Some(Magnitude { values: tensor.to_vec(), of_outputs, taps: shape[2..].iter().product() }))
    }

    /// The whole difference of a bias.
    fn bias_difference(&mut self, layer: &Layer) -> Result<Option<Change>, Problem> {
        let found = self.0.remove(&Part::BiasDifference);
        found.map(|(key, tensor)| layer.full_bias(&key, tensor)).transpose()
    }

    /// The whole difference of a weight.
    fn difference(mut self, layer: &Layer) -> Result<Tensor, Problem> {
        let (key, tensor) = self.need(Part::Difference, "its difference")?;
        // An alpha says nothing here.
        self.0.remove(&Part::Alpha);
        self.none_left()?;
        let shape = layer.modules.and_then(|modules| modules.weight(layer.component, layer.path));
        same_elements(&key, tensor, shape.unwrap_or_default())
    }
}

/// What follows the name of a kind that cannot be read without a model.
const NEEDS_MODEL: &str = "can only be read with the model that it is for (--model)";

impl Layer<'_> {
    /// The shape of the layer's weight, of at least two dimensions. `None`: there is no model.
    fn shape(&self) -> Option<&[usize]> {
        self.modules
            .and_then(|modules| modules.weight(self.component, self.path))
            .filter(|shape| shape.len() > 1)
    }

    /// The shape of the layer's weight, for what is at `key`.
    fn weight(&self, key: &str, kind: &str) -> Result<&[usize], Problem> {
        self.shape().ok_or_else(|| (key.into(), format!("{kind} {NEEDS_MODEL}")))
    }

    /// A whole difference of the layer's bias.
    fn full_bias(&self, key: &str, tensor: Tensor) -> Result<Change, Problem> {
        let Some(modules) = self.modules else {
            return Err((key.into(), format!("a difference of a bias {NEEDS_MODEL}")));
        };
        match modules.tensor(self.component, &self.bias()) {
            Some(shape) => Ok(Change::new(Form::Full(same_elements(key, tensor, shape)?))),
            None => Err((key.into(), "the model's layer has no bias".into())),
        }
    }

    /// The key of the layer's weight.
    pub(super) fn key(&self) -> String {
        format!("{}.weight", self.path)
    }

    /// The key of the layer's bias.
    pub(super) fn bias(&self) -> String {
        format!("{}.bias", self.path)
    }
}

/// A tensor that must have this shape, apart from dimensions of 1.
fn same_elements(key: &str, tensor: Tensor, shape: &[usize]) -> Result<Tensor, Problem> {
    let larger = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
    match larger(tensor.shape()) == larger(shape) {
        true => Ok(tensor.reshape(shape)),
        false => Err((key.into(), shape_problem(&tuple(shape), &tensor))),
    }
}

/// The kind of adapter that a part belongs to. `None`: several kinds have it, or it changes the bias alone.
fn kind(part: Part) -> Option<&'static str> {
    Some(match part {
        Part::Down | Part::Up | Part::Mid | Part::UpBias => "LoRA",
        Part::HadaA(_) | Part::HadaB(_) | Part::HadaCore(_) => "LoHa",
        Part::Lokr(_) | Part::LokrA(_) | Part::LokrB(_) | Part::LokrCore => "LoKr",
        Part::Difference => "a whole difference",
        Part::OftBlocks | Part::OftRescale => "OFT",
        Part::Alpha | Part::DoraScale | Part::MagnitudeVector | Part::BiasDifference => return None,
    })
}
