//! The files that trained weights are made of, by program.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::stored::Region;

/// The files of a trained model: LoRA or UNet in the first two, new tokens in the others.
pub(super) const LORA: &str = "lora.safetensors";
pub(super) const UNET: &str = "unet.safetensors";
pub(super) const EMBEDDINGS: &str = "embeddings.pti";
pub(super) const PARAMS: &str = "special_params.json";
/// The files of PEFT's `save_pretrained`.
pub(super) const PEFT: &str = "adapter_model.safetensors";
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";
/// The file of diffusers' `save_lora_weights`.
pub(super) const DIFFUSERS: &str = "pytorch_lora_weights.safetensors";
/// The files of diffusers' script for textual inversion, one for each text encoder.
pub(super) const LEARNED: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"];
/// The files of a training's checkpoint.
pub(super) const STATE: &str = "state.safetensors";
pub(super) const STATE_PLAN: &str = "state.json";
pub(super) const STATE_SUMS: &str = "sums.json";

/// The program whose files a folder or a tar contains.
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

/// A file's bytes, and the path that errors name.
pub(super) struct Member {
    pub path: PathBuf,
    pub bytes: Region,
}

/// The files of a layout, by name.
pub(super) type Members = BTreeMap<&'static str, Member>;

/// The file name `name`, if it belongs to any layout.
pub(super) fn known(name: &str) -> Option<&'static str> {
    LAYOUTS.iter().flat_map(|(_, names)| *names).copied().find(|known| *known == name)
}
