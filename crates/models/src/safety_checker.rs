//! The safety checker of Stable Diffusion: diffusers' `StableDiffusionSafetyChecker`. CLIP's vision tower describes a picture by
//! a vector; a picture near one of a few published vectors ("concepts") is flagged.

use std::path::Path;

use calotype_tensor::Tensor;

use crate::Error;
use crate::clip_vision::ClipVisionModel;
use crate::config::ClipVisionConfig;
use crate::nn::Linear;
use crate::weights::{Network, Weights, WeightsError};

/// Published vectors with their thresholds.
const CONCEPTS: usize = 17;
const SPECIAL: usize = 3;
/// What a picture near a special concept has added to its scores.
const SPECIAL_CARE: f32 = 0.01;

/// The network.
#[derive(Clone)]
pub struct SafetyChecker {
    /// `vision_model`.
    pub vision_model: ClipVisionModel,
    /// C → projection, without bias.
    pub visual_projection: Linear,
    concepts: Concepts,
    special: Concepts,
    image_size: usize,
}

/// Vectors, and the cosine from which on a picture is near each.
#[derive(Clone)]
struct Concepts {
    /// (n, projection), each of length 1.
    vectors: Vec<Vec<f32>>,
    thresholds: Vec<f32>,
}

/// How near a picture is to the concepts: the cosine above the threshold, rounded to three digits. Above 0, it is near.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyScores {
    /// Of the 3 special concepts, which only make the others stricter.
    pub special: Vec<f32>,
    /// Of the 17 concepts.
    pub concepts: Vec<f32>,
}

impl SafetyScores {
    /// Whether the picture is near a concept.
    pub fn is_flagged(&self) -> bool {
        !self.near().is_empty()
    }

    /// The numbers of the concepts that the picture is near, with their scores. A score that is no number, as broken weights give,
    /// counts as near.
    pub fn near(&self) -> Vec<(usize, f32)> {
        let scores = self.concepts.iter().copied().enumerate();
        scores.filter(|(_, score)| score.is_nan() || *score > 0.0).collect()
    }
}

impl SafetyChecker {
    /// Opens a folder with `config.json` and weights.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = ClipVisionConfig::read(folder)?;
        let weights = Weights::open(folder, Network::SafetyChecker, None, None)?.used_once();
        Ok(Self::load(&weights, &config)?)
    }

    fn load(weights: &Weights, config: &ClipVisionConfig) -> Result<Self, WeightsError> {
        let projection = config.projection_dim;
        let concepts = |name: &str, count: usize| -> Result<Concepts, WeightsError> {
            let vectors = weights.tensor(name, &[count, projection])?.to_vec();
            let thresholds = weights.tensor(&format!("{name}_weights"), &[count])?.to_vec();
            Ok(Concepts { vectors: vectors.chunks(projection).map(normalised).collect(), thresholds })
        };
        let checker = Self {
            vision_model: ClipVisionModel::load(&weights.sub("vision_model"), config)?,
            visual_projection: Linear::load_unbiased(
                weights,
                "visual_projection",
                config.hidden_size,
                projection,
            )?,
            concepts: concepts("concept_embeds", CONCEPTS)?,
            special: concepts("special_care_embeds", SPECIAL)?,
            image_size: config.image_size,
        };
        weights.finish()?;
        Ok(checker)
    }

    /// The side of the pictures that [`Self::scores`] takes, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// pictures (B, S, S, 3), normalised as CLIP's → the scores of each.
    ///
    /// # Panics
    /// If the pictures have another size.
    pub fn scores(&self, pictures: &Tensor) -> Vec<SafetyScores> {
        let pooled = self.vision_model.forward(pictures, &[]).pooled;
        let embeds = self.visual_projection.forward(&pooled); // (B, projection)
        embeds.to_vec().chunks(embeds.last_dim()).map(|embed| self.scores_of(&normalised(embed))).collect()
    }

    fn scores_of(&self, picture: &[f32]) -> SafetyScores {
        let special = self.special.scores(picture, 0.0);
        // The care begins with the first special concept that is near, and holds for the later ones.
        let near = special.iter().position(|score| *score > 0.0);
        let strict = self.special.scores(picture, SPECIAL_CARE);
        let later = |i: usize| near.is_some_and(|first| i > first);
        let special = (0..special.len()).map(|i| if later(i) { strict[i] } else { special[i] }).collect();
        let care = if near.is_some() { SPECIAL_CARE } else { 0.0 };
        SafetyScores { special, concepts: self.concepts.scores(picture, care) }
    }
}

impl Concepts {
    /// The cosine above each threshold plus `care`, rounded to three digits.
    fn scores(&self, picture: &[f32], care: f32) -> Vec<f32> {
        let score = |(vector, threshold): (&Vec<f32>, &f32)| {
            let cosine: f32 = picture.iter().zip(vector).map(|(a, b)| a * b).sum();
            ((cosine - threshold + care) * 1000.0).round_ties_even() / 1000.0
        };
        self.vectors.iter().zip(&self.thresholds).map(score).collect()
    }
}

/// A vector of length 1 in the same direction.
fn normalised(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects against broken weights: where they give no number, the picture is flagged rather than passed.
    #[test]
    fn no_number_is_flagged() {
        let scores = |concepts: &[f32]| SafetyScores { special: vec![0.1], concepts: concepts.to_vec() };
        assert!(!scores(&[-0.2, 0.0]).is_flagged());
        assert_eq!(scores(&[-0.2, 0.001]).near(), [(1, 0.001)]);
        assert!(scores(&[-0.2, f32::NAN]).is_flagged());
    }
}
