//! What a component's files are called, and the older key names that they may have.

use std::collections::BTreeMap;

/// Which network a folder's weights are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// `UNet2DConditionModel`.
    UNet,
    /// `AutoencoderKL`.
    Vae,
    /// `CLIPTextModel`, `CLIPTextModelWithProjection`.
    ClipText,
}

impl Network {
    /// The files' name, without variant and ending: diffusers' and transformers' differ.
    pub(super) fn stem(self) -> &'static str {
        match self {
            Self::UNet | Self::Vae => "diffusion_pytorch_model",
            Self::ClipText => "model",
        }
    }

    /// Whether a key (today's name) is of a tensor that a network has no place for, is often there all the same, and harms
    /// nobody.
    pub(super) fn ignores(self, key: &str) -> bool {
        let key = key.strip_prefix("text_model.").unwrap_or(key);
        match self {
            // A constant 0..77, which older transformers saved; a whole CLIP model's other half and scale; the projection,
            // which only the second encoder uses. Tools that cut up one-file checkpoints leave them.
            Self::ClipText => {
                matches!(key, "embeddings.position_ids" | "logit_scale")
                    || ["text_projection", "vision_model.", "visual_projection."]
                        .iter()
                        .any(|beginning| key.starts_with(beginning))
            }
            // What only the training of a VAE has.
            Self::Vae => key.starts_with("loss."),
            Self::UNet => false,
        }
    }

    /// Gives every tensor the key that the models know: (key in the file, entry) by today's key.
    pub(super) fn rename<T>(self, tensors: BTreeMap<String, T>) -> BTreeMap<String, (String, T)> {
        let prefixed = tensors.keys().any(|key| key.starts_with("text_model."));
        let today = |key: &str| match self {
            // transformers 5 writes CLIPTextModel without the prefix.
            Self::ClipText if !prefixed && !key.starts_with("text_projection.") => {
                Some(format!("text_model.{key}"))
            }
            Self::Vae => vae_attention(key),
            _ => None,
        };
        let mut renamed: BTreeMap<String, (String, T)> = BTreeMap::new();
        let mut old = Vec::new();
        for (key, entry) in tensors {
            match today(&key) {
                Some(name) => old.push((name, key, entry)),
                None => drop(renamed.insert(key.clone(), (key, entry))),
            }
        }
        for (name, key, entry) in old {
            // Beside a tensor of today's name, an old one stays what it is: a surplus.
            let name = if renamed.contains_key(&name) { key.clone() } else { name };
            renamed.insert(name, (key, entry));
        }
        renamed
    }

    /// The shape that the models know of `key` (today's name): an old VAE's attention was of 1×1 convolutions.
    pub(super) fn reshape(self, key: &str, shape: &[usize]) -> Vec<usize> {
        match shape {
            &[o, i, 1, 1] if self == Self::Vae && is_vae_attention(key) => vec![o, i],
            other => other.to_vec(),
        }
    }
}

const ATTENTION: &str = ".mid_block.attentions.0.";

/// Today's name of an old VAE attention key.
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
