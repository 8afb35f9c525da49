//! W' = W + lora_scale · ΔW: the changes of one tensor that adapters other than plain LoRA make.

mod hadamard;
mod kronecker;
mod low_rank;
mod magnitude;
mod matrix;
mod rotation;

use calotype_tensor::Tensor;

pub use hadamard::Hadamard;
pub use kronecker::{Factor, FactorForm, Kronecker};
pub use low_rank::LoraPair;
pub use magnitude::Magnitude;
pub(super) use matrix::fold;
pub use rotation::Rotation;

/// The change of one tensor of a model. Its shape is known and fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// How the difference is stored.
    pub form: Form,
    /// DoRA's magnitudes, if the change has them.
    pub magnitude: Option<Magnitude>,
}

/// How a difference of weights is stored.
#[derive(Clone, Debug)]
pub enum Form {
    /// LoRA, which is a change of this type only where it has magnitudes (DoRA).
    LowRank(LoraPair),
    /// LoHa.
    Hadamard(Hadamard),
    /// LoKr.
    Kronecker(Kronecker),
    /// The whole difference, of any tensor (LyCORIS' full and norm, a bias).
    Full(Tensor),
    /// OFT and BOFT.
    Rotation(Rotation),
}

/// What is added to a weight: `factor` times `values`, which has as many elements.
pub(super) struct Added {
    pub factor: f64,
    pub values: Vec<f32>,
}

impl Change {
    /// A change without magnitudes.
    pub(super) fn new(form: Form) -> Self {
        Self { form, magnitude: None }
    }

    /// What is added to `weight` at a `scale`.
    ///
    /// With magnitudes (DoRA), the weight goes the part `scale` of the way to the trained one.
    pub(super) fn added(&self, weight: &[f32], scale: f64) -> Added {
        match &self.magnitude {
            None => self.form.added(weight, scale),
            Some(magnitude) => {
                let whole = self.form.added(weight, 1.0);
                let factor = whole.factor as f32;
                let sum = weight.iter().zip(whole.values).map(|(w, d)| w + factor * d).collect();
                let values = magnitude.applied(sum).into_iter().zip(weight).map(|(new, w)| new - w);
                Added { factor: scale, values: values.collect() }
            }
        }
    }

    /// The name of the kind, as people write it.
    pub(super) fn name(&self) -> &'static str {
        match (&self.form, &self.magnitude) {
            (_, Some(_)) => "DoRA",
            (Form::LowRank(_), None) => "LoRA",
            (Form::Hadamard(_), None) => "LoHa",
            (Form::Kronecker(_), None) => "LoKr",
            (Form::Full(_), None) => "a whole difference of weights",
            (Form::Rotation(_), None) => "OFT",
        }
    }
}

impl Form {
    fn added(&self, weight: &[f32], scale: f64) -> Added {
        let (factor, values) = match self {
            Self::LowRank(pair) => (pair.scale() * scale, pair.product()),
            Self::Hadamard(hadamard) => (hadamard.scale * scale, hadamard.product()),
            Self::Kronecker(kronecker) => (kronecker.scale * scale, kronecker.product()),
            Self::Full(difference) => (scale, difference.to_vec()),
            Self::Rotation(rotation) => (1.0, rotation.difference(weight, scale)),
        };
        Added { factor, values }
    }

    /// The stored tensors and numbers, for comparisons.
    fn parts(&self) -> (Vec<&Tensor>, f64) {
        match self {
            Self::LowRank(pair) => (vec![&pair.down, &pair.up], pair.scale()),
            Self::Hadamard(hadamard) => (hadamard.tensors(), hadamard.scale),
            Self::Kronecker(kronecker) => (kronecker.tensors(), kronecker.scale),
            Self::Full(difference) => (vec![difference], 1.0),
            Self::Rotation(rotation) => {
                (std::iter::once(&rotation.blocks).chain(&rotation.rescale).collect(), rotation.constraint)
            }
        }
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        let ((a, a_number), (b, b_number)) = (self.parts(), other.parts());
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && a_number == b_number
            && a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| super::same(a, b))
    }
}
