//! SwinIR for real pictures, which enlarges them: the medium network and the large one, with the upsampler "nearest+conv".
//! Liang et al., "SwinIR: Image Restoration Using Swin Transformer", 2021.

use std::path::Path;

use calotype_tensor::ops::Activation;
use calotype_tensor::{DType, Tensor};

use crate::config::SwinIrConfig;
use crate::nn::{
    Conv2d, LayerNorm, Linear, NearestConvUpsampler, ResidualConv, WindowAttention, Windows, bias_of_offsets,
    centred, uncentred,
};
use crate::weights::{Network, Part, Weights, WeightsError, store_for};

/// What is added to scores across an edge of the image.
const APART: f32 = -100.0;
/// PyTorch's default.
const EPS: f32 = 1e-5;
const IMG_RANGE: f32 = 1.0;

/// The network.
#[derive(Clone)]
pub struct SwinIr {
    /// 3 → C.
    pub conv_first: Conv2d,
    /// `patch_embed.norm`.
    pub patch_embed_norm: LayerNorm,
    /// Groups of blocks.
    pub layers: Vec<SwinIrLayer>,
    /// After the last layer.
    pub norm: LayerNorm,
    /// C → C.
    pub conv_after_body: ResidualConv,
    /// `conv_before_upsample.0` to `conv_last`: C → features → 3.
    pub upsampler: NearestConvUpsampler,
    window_size: usize,
    dtype: DType,
}

/// Blocks, and a convolution.
#[derive(Clone)]
pub struct SwinIrLayer {
    /// `residual_group.blocks`. The windows of every second one are shifted.
    pub blocks: Vec<SwinIrBlock>,
    /// C → C.
    pub conv: ResidualConv,
}

/// Attention and an MLP, each normalised before it.
#[derive(Clone)]
pub struct SwinIrBlock {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// `attn`, whose `qkv` is three matrices here.
    pub attn: WindowAttention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// `mlp.fc1`: C → MLP.
    pub fc1: Linear,
    /// `mlp.fc2`: MLP → C.
    pub fc2: Linear,
    windows: Windows,
}

impl SwinIr {
    /// Opens a file of weights, or a folder that has one under transformers' name, to compute in `dtype`. The network's sizes are told by
    /// the shapes of its tensors.
    ///
    /// # Errors
    /// The file is missing, invalid or not SwinIR's, or the network has another upsampler.
    pub fn open(path: &Path, dtype: DType) -> Result<Self, WeightsError> {
        // Queries, keys and values are products of their own, so that nothing is cut out of their results.
        let named = |key: &str| {
            let Some((block, kind)) = key.split_once(".attn.qkv.") else {
                return Some(vec![(key.to_string(), Part::Whole)]);
            };
            let third = |(i, name): (usize, &str)| (format!("{block}.attn.{name}.{kind}"), Part::Third(i));
            Some(["query", "key", "value"].into_iter().enumerate().map(third).collect())
        };
        let weights = Weights::of_slice(path, Network::SwinIr, store_for(dtype), named)?;
        Self::load(&weights, &SwinIrConfig::of(&weights)?, dtype)
    }

    fn load(weights: &Weights, config: &SwinIrConfig, dtype: DType) -> Result<Self, WeightsError> {
        let width = config.embed_dim;
        let layers = weights.sub("layers");
        let layer = |i: usize| SwinIrLayer::load(&layers.sub(i), config, i);
        let network = Self {
            conv_first: Conv2d::load(weights, "conv_first", 3, width, 3)?,
            patch_embed_norm: LayerNorm::load(weights, "patch_embed.norm", width, EPS)?,
            layers: (0..config.depths.len()).map(layer).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(weights, "norm", width, EPS)?,
            conv_after_body: ResidualConv::load(weights, "conv_after_body", width, config.three_convs)?,
            upsampler: NearestConvUpsampler::load(
                weights,
                ["conv_before_upsample.0", "conv_last"],
                [width, config.num_feat],
                config.upscale,
            )?,
            window_size: config.window_size,
            dtype,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Pixels of a window's side.
    pub fn window_size(&self) -> usize {
        self.window_size
    }

    /// How much larger pictures become.
    pub fn factor(&self) -> usize {
        self.upsampler.factor()
    }

    /// pixels (1, H, W, 3) from 0 to 1 → (1, factor · H, factor · W, 3), f32, about from 0 to 1.
    ///
    /// # Panics
    /// If H or W is no multiple of the window's side, or there is more than one picture.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let shallow = self.conv_first.forward(&centred(pixels, IMG_RANGE, self.dtype));
        let mut h = self.patch_embed_norm.forward(&shallow);
        for layer in &self.layers {
            h = layer.forward(&h);
        }
        let features = self.conv_after_body.forward(&self.norm.forward(&h), Some(&shallow));
        uncentred(&self.upsampler.forward_in_rows(&features), IMG_RANGE)
    }
}

impl SwinIrLayer {
    fn load(weights: &Weights, config: &SwinIrConfig, number: usize) -> Result<Self, WeightsError> {
        let blocks = weights.sub("residual_group.blocks");
        let block =
            |i: usize| SwinIrBlock::load(&blocks.sub(i), config, config.num_heads[number], i % 2 == 1);
        Ok(Self {
            blocks: (0..config.depths[number]).map(block).collect::<Result<_, _>>()?,
            conv: ResidualConv::load(weights, "conv", config.embed_dim, config.three_convs)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.clone();
        for block in &self.blocks {
            h = block.forward(&h);
        }
        self.conv.forward(&h, Some(x))
    }
}

impl SwinIrBlock {
    fn load(
        weights: &Weights,
        config: &SwinIrConfig,
        heads: usize,
        shifted: bool,
    ) -> Result<Self, WeightsError> {
        let (width, window) = (config.embed_dim, config.window_size);
        let (attn, mlp) = (weights.sub("attn"), weights.sub("mlp"));
        let linear = |name: &str| Linear::load(&attn, name, width, width);
        let offsets = (2 * window - 1) * (2 * window - 1);
        let table = attn.tensor("relative_position_bias_table", &[offsets, heads])?.to_vec();
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        Ok(Self {
            norm1: LayerNorm::load(weights, "norm1", width, EPS)?,
            attn: WindowAttention {
                query: linear("query")?,
                key: linear("key")?,
                value: linear("value")?,
                output: linear("proj")?,
                cosine: false,
                scale: Tensor::from_vec(vec![scale; heads], &[heads]),
                bias: bias_of_offsets(&table, heads, window),
            },
            norm2: LayerNorm::load(weights, "norm2", width, EPS)?,
            fc1: Linear::load(&mlp, "fc1", width, config.mlp_dim)?,
            fc2: Linear::load(&mlp, "fc2", config.mlp_dim, width)?,
            windows: Windows { size: window, shift: if shifted { window / 2 } else { 0 }, apart: APART },
        })
    }

    /// x (B, H, W, C) → (B, H, W, C).
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.attn.forward(&self.norm1.forward(x), self.windows, Some(x));
        let h = self.fc1.forward_fused(&self.norm2.forward(&x), Activation::Gelu, None);
        self.fc2.forward_fused(&h, Activation::None, Some(&x))
    }
}
