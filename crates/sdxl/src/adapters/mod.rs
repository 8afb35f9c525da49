//! Trained weights: LoRA and its relatives, embeddings of new tokens, or a UNet's own tensors. They have one form in memory ([`TrainedWeights`]),
//! are read from and written to every common layout, and are merged into a model's weights while these are loaded
//! ([`Adapters`]).
//!
//! | layout | keys |
//! |---|---|
//! | cog: `trained_model.tar` | `….attn1.processor.to_q_lora.down.weight`, beside `embeddings.pti`, `special_params.json` |
//! | kohya | `lora_unet_…_attn1_to_q.lora_down.weight`, `.alpha`; `bundle_emb.TOK.clip_l` |
//! | diffusers | `unet.….attn1.to_q.lora_A.weight`, or older `.lora.down.weight` |
//! | PEFT | `base_model.model.….attn1.to_q.lora_A.weight`, beside `adapter_config.json` |
//! | OneTrainer, ComfyUI | `unet.input_blocks.4.1.….attn1.to_q.lora_down.weight`, `diffusion_model.…` |
//! | LyCORIS, kohya | `lora_unet_….hada_w1_a`, `.lokr_w1`, `.oft_blocks`, `.diff`, `.w_norm`; with `.dora_scale` |
//! | a checkpoint of a training | `….attn1.to_q.down`, `text_encoders_0`, beside `state.json` |

mod active;
mod change;
mod embeddings;
mod error;
mod fingerprint;
mod key;
mod members;
mod modules;
mod other_model;
mod parts;
mod patch;
mod peft;
mod read;
mod safetensors;
mod source;
mod step;
mod stored;
mod tags;
mod tokens;
mod untar;
mod values;
mod words;
mod write;

use std::collections::BTreeMap;

use calotype_tensor::Tensor;

pub use active::Adapters;
pub use change::{Change, LoraPair};
pub use error::AdapterError;
pub use fingerprint::Fingerprint;
pub use modules::Modules;
pub use patch::Patch;
pub use safetensors::SafetensorsFile;
pub use safetensors::safetensors_header;
pub use source::files_read;
pub use stored::Stored;
pub(crate) use tags::Tagged;
pub use tags::{has_tag, name};
pub use write::TarFile;

/// Trained weights, independent of their layout on disk.
#[derive(Clone, Debug, Default)]
pub struct TrainedWeights {
    /// The UNet's LoRA, by layer path: `down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q`. The last
    /// layer of an attention is `….attn1.to_out.0`.
    pub lora: BTreeMap<String, LoraPair>,
    /// The LoRA of both text encoders, by layer paths such as `text_model.encoder.layers.0.self_attn.q_proj`.
    pub text_lora: [BTreeMap<String, LoraPair>; 2],
    /// Other changes of the UNet's tensors, by key: `down_blocks.0.resnets.0.conv1.weight`.
    pub changes: BTreeMap<String, Change>,
    /// Other changes of both text encoders' tensors, by key.
    pub text_changes: [BTreeMap<String, Change>; 2],
    /// A full fine-tune's tensors, by the UNet's key: `conv_in.weight`.
    pub unet: BTreeMap<String, Stored>,
    /// The embeddings of the new tokens `<s0>`, `<s1>`, … in both text encoders: (tokens, 768) and (tokens, 1280), f32.
    pub embeddings: Option<[Tensor; 2]>,
    /// The values that replace words in a prompt: `TOK` → `<s0><s1>`.
    pub tokens: BTreeMap<String, String>,
    /// Embeddings by word, of which the file has only one text encoder's. diffusers writes one file for each encoder.
    pub lone_embeddings: BTreeMap<String, [Option<Tensor>; 2]>,
}

impl TrainedWeights {
    /// The number of new tokens with embeddings.
    pub fn new_tokens(&self) -> usize {
        self.embeddings.as_ref().map_or(0, |[first, _]| first.dim(0))
    }

    /// Whether there are no weights and no words.
    pub fn is_empty(&self) -> bool {
        let no_tokens =
            self.tokens.is_empty() && self.embeddings.is_none() && self.lone_embeddings.is_empty();
        no_tokens && self.changes_nothing()
    }

    /// Whether there are embeddings, and no LoRA or full tensors.
    pub fn is_embeddings_only(&self) -> bool {
        self.embeddings.is_some() && self.changes_nothing()
    }

    /// Changes of other kinds than plain LoRA, by key, in the UNet and then in the text encoders.
    pub fn other_changes(&self) -> impl Iterator<Item = (&String, &Change)> {
        self.changes.iter().chain(self.text_changes.iter().flatten())
    }

    /// Whether no tensor of a model changes.
    fn changes_nothing(&self) -> bool {
        !self.has_scaled_changes() && self.unet.is_empty()
    }

    /// Whether there are changes that a scale multiplies: LoRA, or changes of other kinds.
    fn has_scaled_changes(&self) -> bool {
        let lora = [&self.lora].into_iter().chain(&self.text_lora);
        lora.flatten().next().is_some() || self.other_changes().next().is_some()
    }
}

impl PartialEq for TrainedWeights {
    fn eq(&self, other: &Self) -> bool {
        let embeddings = match (&self.embeddings, &other.embeddings) {
            (Some(a), Some(b)) => same(&a[0], &b[0]) && same(&a[1], &b[1]),
            (a, b) => a.is_none() && b.is_none(),
        };
        let lone = |weights: &Self| {
            let tables = |pair: &[Option<Tensor>; 2]| pair.each_ref().map(|t| t.as_ref().map(Tensor::to_vec));
            weights.lone_embeddings.values().map(tables).collect::<Vec<_>>()
        };
        embeddings
            && self.lone_embeddings.keys().eq(other.lone_embeddings.keys())
            && lone(self) == lone(other)
            && (&self.lora, &self.text_lora, &self.unet, &self.tokens)
                == (&other.lora, &other.text_lora, &other.unet, &other.tokens)
            && (&self.changes, &self.text_changes) == (&other.changes, &other.text_changes)
    }
}

/// Whether two f32 tensors have the same shape and values.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.f32s() == b.f32s()
}
