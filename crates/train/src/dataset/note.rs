//! What a user should know of a picture before a training.

use calotype_models::shorten;
use serde::{Deserialize, Serialize};

/// A warning about one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Note {
    /// The picture is smaller than the resolution. A network enlarged it if `upscaled`, or else a filter alone.
    Small { width: u32, height: u32, resolution: usize, upscaled: Option<u32> },
    /// The segmenter is not sure that the picture shows what the prompt names.
    Nothing { prompt: String, largest: f32 },
    /// The picture has no face.
    NoFace,
    /// The number of the picture's faces, if there are several.
    Faces(usize),
    /// What matters, by a network, lies outside of the crop.
    Outside,
    /// The caption has a word that captioners make up.
    Word(String),
}

impl Note {
    /// Whether the note is about a mask that a network made, so that it says nothing of another mask.
    pub(crate) fn is_about_mask(&self) -> bool {
        matches!(self, Note::Nothing { .. } | Note::NoFace | Note::Faces(_) | Note::Outside)
    }

    /// The note beside the picture.
    pub(crate) fn text(&self) -> String {
        match self {
            Note::Small { width, height, resolution, upscaled } => {
                let how = upscaled.map_or("enlarged".to_owned(), |factor| format!("upscaled ×{factor}"));
                format!("{width} × {height} is smaller than {resolution}: {how}")
            }
            Note::Nothing { prompt, largest } => {
                let prompt = shorten(prompt);
                format!("found nothing for '{prompt}': largest probability {largest:.2}, so all of it counts")
            }
            Note::Outside => "what was found lies outside of the crop: all of the crop counts".to_owned(),
            Note::NoFace => "no face found: all of it counts".to_owned(),
            Note::Faces(count) => format!("{count} faces; the larger one decides the crop"),
            Note::Word(word) => format!("caption says '{}'", shorten(word)),
        }
    }

    /// The note among those of other pictures, with the picture's name.
    pub(crate) fn line(&self, name: &str) -> String {
        let name = shorten(name);
        match self {
            Note::Nothing { prompt, largest } => {
                let prompt = shorten(prompt);
                format!(
                    "found nothing for '{prompt}' in {name}: largest probability {largest:.2}, so all of it counts"
                )
            }
            note => format!("{name}: {}", note.text()),
        }
    }
}
