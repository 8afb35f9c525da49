//! The names of a component's files, and the older key names that the files may have.

use std::collections::BTreeMap;

/// The network that a folder's weights belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// `UNet2DConditionModel`.
    UNet,
    /// `AutoencoderKL`.
    Vae,
    /// The decoder of `AutoencoderTiny`.
    DecoderTiny,
    /// `CLIPTextModel`, `CLIPTextModelWithProjection`.
    ClipText,
    /// `StableDiffusionSafetyChecker`.
    SafetyChecker,
    /// `Swin2SRForImageSuperResolution`.
    Swin2Sr,
    /// SwinIR.
    SwinIr,
    /// `BlipForConditionalGeneration`.
    Blip,
    /// `CLIPSegForImageSegmentation`.
    ClipSeg,
}

impl Network {
    /// The files' name without variant and extension. diffusers and transformers use different names.
    pub(super) fn stem(self) -> &'static str {
        match self {
            Self::UNet | Self::Vae | Self::DecoderTiny => "diffusion_pytorch_model",
            Self::ClipText
            | Self::SafetyChecker
            | Self::Swin2Sr
            | Self::SwinIr
            | Self::Blip
            | Self::ClipSeg => "model",
        }
    }

    /// Whether a key (by its current name) belongs to a tensor that the network does not use, and that files often contain
    /// without harm.
    pub(super) fn ignores(self, key: &str) -> bool {
        let key = key.strip_prefix("text_model.").unwrap_or(key);
        match self {
            // The constant 0..77, which older transformers saved; the other half and the scale of a whole CLIP model; the
            // projection, which only the second encoder uses. Tools that split single-file checkpoints leave these.
            Self::ClipText => {
                matches!(key, "embeddings.position_ids" | "logit_scale")
                    || ["text_projection", "vision_model.", "visual_projection."]
                        .iter()
                        .any(|beginning| key.starts_with(beginning))
            }
            // Tensors that only the training of a VAE uses.
            Self::Vae => key.starts_with("loss."),
            Self::DecoderTiny => key.starts_with("encoder."),
            Self::SafetyChecker => key == "vision_model.embeddings.position_ids",
            // What follows from the window's size and from the pictures' in training.
            Self::Swin2Sr | Self::SwinIr => {
                [".attn_mask", ".relative_coords_table", ".relative_position_index"]
                    .iter()
                    .any(|end| key.ends_with(end))
            }
            // The constants 0..512, 0..77 and 0..patches, which older transformers saved.
            Self::Blip | Self::ClipSeg => key.ends_with("embeddings.position_ids"),
            Self::UNet => false,
        }
    }

    /// Maps every tensor to its current key. The values are (key in the file, entry).
    pub(crate) fn rename<T>(self, tensors: BTreeMap<String, T>) -> BTreeMap<String, (String, T)> {
        let prefixed = tensors.keys().any(|key| key.starts_with("text_model."));
        let current = |key: &str| match self {
            // transformers 5 writes a CLIPTextModel without the prefix.
            Self::ClipText if !prefixed && !key.starts_with("text_projection.") => {
                Some(format!("text_model.{key}"))
            }
            // transformers before 5 writes a tower as a module within a module.
            Self::SafetyChecker => {
                key.strip_prefix("vision_model.vision_model.").map(|rest| format!("vision_model.{rest}"))
            }
            Self::Vae => vae_attention(key),
            _ => None,
        };
        let mut renamed: BTreeMap<String, (String, T)> = BTreeMap::new();
        let mut old = Vec::new();
        for (key, entry) in tensors {
            match current(&key) {
                Some(name) => old.push((name, key, entry)),
                None => drop(renamed.insert(key.clone(), (key, entry))),
            }
        }
        for (name, key, entry) in old {
            // If a tensor with the current name exists, the one with the old name stays a surplus tensor.
            let name = if renamed.contains_key(&name) { key.clone() } else { name };
            renamed.insert(name, (key, entry));
        }
        renamed
    }

    /// The shape that the network has for `key` (the current name). The attention of an old VAE has 1×1 convolutions.
    pub(super) fn reshape(self, key: &str, shape: &[usize]) -> Vec<usize> {
        match shape {
            &[o, i, 1, 1] if self == Self::Vae && is_vae_attention(key) => vec![o, i],
            other => other.to_vec(),
        }
    }
}

const ATTENTION: &str = ".mid_block.attentions.0.";

/// The current name of an old VAE attention key.
fn vae_attention(key: &str) -> Option<String> {
    let (block, tensor) = key.split_once(ATTENTION)?;
    let (old, kind) = tensor.split_once('.')?;
    let new = match old {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return None,
    };
    Some(format!("{block}{ATTENTION}{new}.{kind}"))
}

fn is_vae_attention(key: &str) -> bool {
    key.split_once(ATTENTION).is_some_and(|(_, tensor)| tensor.starts_with("to_"))
}
