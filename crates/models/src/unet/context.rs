//! What the denoiser takes besides latents and timestep: the same at every step, so computed once.

use calotype_tensor::{DType, Tensor, ops};

use super::UNet;
use crate::nn::{KeyValue, Transformer2DModel};

/// For each transformer of a block, for each of its layers, the text's keys and values.
pub type BlockContext = Vec<Vec<KeyValue>>;

/// The conditioning of B images, made ready by [`UNet::prepare`].
#[derive(Clone)]
pub struct Context {
    /// (B, E) f32, added to the time embedding.
    pub aug_emb: Tensor,
    /// For each down block.
    pub down_blocks: Vec<BlockContext>,
    /// For the middle block.
    pub mid_block: BlockContext,
    /// For each up block.
    pub up_blocks: Vec<BlockContext>,
}

impl UNet {
    /// Computes what depends on the prompt only.
    ///
    /// `encoder_hidden_states` (B, S, `cross_attention_dim`) in the dtype to compute in; `text_embeds` (B, pooled);
    /// `time_ids` (B, 6) in pixels: original height and width, crop's top and left, target height and width (the
    /// refiner, B × 5: an aesthetic score in place of the target size).
    pub fn prepare(
        &self,
        encoder_hidden_states: &Tensor,
        text_embeds: &Tensor,
        time_ids: &Tensor,
    ) -> Context {
        let text = |transformers: &[Transformer2DModel]| -> BlockContext {
            transformers.iter().map(|t| t.key_values(encoder_hidden_states)).collect()
        };
        Context {
            aug_emb: self.aug_emb(text_embeds, time_ids),
            down_blocks: self.down_blocks.iter().map(|block| text(&block.attentions)).collect(),
            mid_block: text(&self.mid_block.attentions),
            up_blocks: self.up_blocks.iter().map(|block| text(&block.attentions)).collect(),
        }
    }

    fn aug_emb(&self, text_embeds: &Tensor, time_ids: &Tensor) -> Tensor {
        let (batch, ids) = (time_ids.dim(0), time_ids.dim(1));
        let time_embeds = self.sinusoidal(&time_ids.to_vec(), self.addition_time_embed_dim); // (B · 6, 256)
        let time_embeds = time_embeds.reshape(&[batch, ids * self.addition_time_embed_dim]);
        let text_embeds = text_embeds.to_dtype(DType::F32);
        self.add_embedding.forward(&ops::concat(&[&text_embeds, &time_embeds]), None)
    }
}
