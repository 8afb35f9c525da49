//! The files that trained weights are made of, by program.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::stored::Region;

/// The files of a trained model: the first two have the LoRA or the UNet, the others the tokens.
pub(super) const LORA: &str = "lora.safetensors";
pub(super) const UNET: &str = "unet.safetensors";
pub(super) const EMBEDDINGS: &str = "embeddings.pti";
pub(super) const PARAMS: &str = "special_params.json";
/// PEFT's `save_pretrained`.
pub(super) const PEFT: &str = "adapter_model.safetensors";
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";
/// diffusers' `save_lora_weights`.
pub(super) const DIFFUSERS: &str = "pytorch_lora_weights.safetensors";
/// diffusers' script for textual inversion: a file for each text encoder.
pub(super) const LEARNED: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"];
/// A checkpoint of a training.
pub(super) const STATE: &str = "state.safetensors";
pub(super) const STATE_PLAN: &str = "state.json";
pub(super) const STATE_SUMS: &str = "sums.json";

/// Which program's files a folder or a tar has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Trained,
    Peft,
    Diffusers,
    LearnedEmbeds,
    Checkpoint,
}

/// The files of each layout.
pub(super) const LAYOUTS: [(Layout, &[&str]); 5] = [
    (Layout::Trained, &[LORA, UNET, EMBEDDINGS, PARAMS]),
    (Layout::Peft, &[PEFT, PEFT_CONFIG]),
    (Layout::Diffusers, &[DIFFUSERS]),
    (Layout::LearnedEmbeds, &LEARNED),
    (Layout::Checkpoint, &[STATE, STATE_PLAN, STATE_SUMS]),
];

/// A file's bytes, and what to call it in errors.
pub(super) struct Member {
    pub path: PathBuf,
    pub bytes: Region,
}

/// The files of a layout, by their names.
pub(super) type Members = BTreeMap<&'static str, Member>;

/// The member of this name, of any layout.
pub(super) fn known(name: &str) -> Option<&'static str> {
    LAYOUTS.iter().flat_map(|(_, names)| *names).copied().find(|known| *known == name)
}
