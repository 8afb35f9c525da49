//! The layers of SDXL's networks. Fields are named by checkpoint key.
//!
//! Images are (B, H, W, C), sequences are (B, T, C). A layer computes in the dtype of its input.

mod attention;
mod clip;
mod conv2d;
mod embeddings;
mod linear;
mod lora;
mod norm;
mod recompute;
mod resample;
mod resnet;
mod super_resolution;
mod transformer;
mod vision_embeddings;
pub(crate) mod visit;
mod window_attention;

pub use crate::parameter::{Parameter, Trainable};
pub(crate) use attention::attend;
pub use attention::{Attention, KeyValue};
pub use clip::{ClipAttention, ClipEncoderLayer, ClipLayerConfig, ClipMlp};
pub use conv2d::Conv2d;
pub use embeddings::TimestepEmbedding;
pub use linear::Linear;
pub use lora::Lora;
pub use norm::{GroupNorm, LayerNorm};
pub use recompute::Activations;
pub use resample::{Downsample2D, Upsample2D};
pub use resnet::{ResnetBlock2D, ResnetConfig};
pub use super_resolution::{NearestConvUpsampler, ResidualConv};
pub(crate) use super_resolution::{centred, uncentred};
pub use transformer::{BasicTransformerBlock, FeedForward, Transformer2DConfig, Transformer2DModel};
pub use vision_embeddings::VisionEmbeddings;
pub(crate) use vision_embeddings::resample_positions;
pub(crate) use visit::module;
pub use visit::{AnyParameter, Layer, Module};
pub(crate) use window_attention::bias_of_offsets;
pub use window_attention::{WindowAttention, Windows};
