//! The denoiser's inputs besides latents and timestep. They are the same in every step, so they are computed once.

use calotype_tensor::{DType, Tensor, ops};

use super::UNet;
use crate::nn::{KeyValue, Transformer2DModel};

/// The keys and values of the text, for each layer of each transformer of a block.
pub type BlockContext = Vec<Vec<KeyValue>>;

/// The conditioning of B images, computed by [`UNet::prepare`].
#[derive(Clone)]
pub struct Context {
    /// (B, E), f32: the added embedding, a summand of the time embedding.
    pub aug_emb: Tensor,
    /// For each down block.
    pub down_blocks: Vec<BlockContext>,
    /// For the middle block.
    pub mid_block: BlockContext,
    /// For each up block.
    pub up_blocks: Vec<BlockContext>,
}

impl UNet {
    /// Computes everything that depends on the prompt and the time ids only.
    ///
    /// `encoder_hidden_states` is (B, S, `cross_attention_dim`), in the dtype to compute in. `text_embeds` is (B, pooled).
    /// `time_ids` is (B, 6), in pixels: original height and width, crop top and left, target height and width. The refiner
    /// takes (B, 5), with an aesthetic score in place of the target size.
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
        let device = text_embeds.device();
        let time_embeds = self.sinusoidal(&time_ids.to_vec(), self.addition_time_embed_dim, device); // (B · 6, 256)
        let time_embeds = time_embeds.reshape(&[batch, ids * self.addition_time_embed_dim]);
        let text_embeds = text_embeds.to_dtype(DType::F32);
        self.add_embedding.forward(&ops::concat(&[&text_embeds, &time_embeds]), None)
    }
}
