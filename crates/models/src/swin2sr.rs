//! Swin2SR, which enlarges pictures: transformers' `Swin2SRForImageSuperResolution` with the upsampler "nearest+conv".
//! Conde et al., "Swin2SR: SwinV2 Transformer for Compressed Image Super-Resolution and Restoration", 2022.

use std::path::Path;

use calotype_tensor::ops::{self, Activation};
use calotype_tensor::{DType, Tensor};

use crate::Error;
use crate::config::Swin2SrConfig;
use crate::nn::{
    Conv2d, LayerNorm, Linear, NearestConvUpsampler, ResidualConv, WindowAttention, Windows, bias_of_offsets,
    centred, uncentred,
};
use crate::weights::{Network, Weights, WeightsError, store_for};

/// What transformers adds to scores across an edge of the image: −100, twice. The authors add it once.
const APART: f32 = -200.0;
/// The largest factor of a cosine.
const MAX_LOGIT_SCALE: f32 = 100.0;
/// Features of the network that makes biases of offsets.
const BIAS_FEATURES: usize = 512;
/// The features of the upsampler.
const UPSAMPLER_FEATURES: usize = 64;
/// Epsilon of the patches' norm, which has PyTorch's default whatever the config says.
const PATCHES_EPS: f32 = 1e-5;

/// The network.
#[derive(Clone)]
pub struct Swin2Sr {
    /// `swin2sr.first_convolution`: 3 → C.
    pub first_convolution: Conv2d,
    /// `swin2sr.embeddings.patch_embeddings.projection`: C → C.
    pub projection: Linear,
    /// `swin2sr.embeddings.patch_embeddings.layernorm`.
    pub patches_layernorm: LayerNorm,
    /// `swin2sr.encoder.stages`.
    pub stages: Vec<Stage>,
    /// `swin2sr.layernorm`.
    pub layernorm: LayerNorm,
    /// `swin2sr.conv_after_body`: C → C.
    pub conv_after_body: Conv2d,
    /// `upsample`: C → 64 → 3.
    pub upsample: NearestConvUpsampler,
    img_range: f32,
    window_size: usize,
    dtype: DType,
}

/// Layers, and a convolution.
#[derive(Clone)]
pub struct Stage {
    /// The windows of every second one are shifted.
    pub layers: Vec<Swin2SrLayer>,
    /// C → C.
    pub conv: ResidualConv,
    /// `patch_embed.projection`: C → C.
    pub projection: Linear,
}

/// Attention and an MLP, each normalised after it.
#[derive(Clone)]
pub struct Swin2SrLayer {
    /// `attention`.
    pub attention: WindowAttention,
    /// After the attention, in spite of its name.
    pub layernorm_before: LayerNorm,
    /// `intermediate.dense`: C → MLP.
    pub intermediate: Linear,
    /// `output.dense`: MLP → C.
    pub output: Linear,
    /// After the MLP.
    pub layernorm_after: LayerNorm,
    act: Activation,
    windows: Windows,
}

impl Swin2Sr {
    /// Opens a folder with `config.json` and weights, to compute in `dtype`.
    ///
    /// # Errors
    /// A file is missing or invalid, or the model has another upsampler.
    pub fn open(folder: &Path, dtype: DType) -> Result<Self, Error> {
        let config = Swin2SrConfig::read(folder)?;
        let weights = Weights::open(folder, Network::Swin2Sr, None, store_for(dtype))?;
        Ok(Self::load(&weights, &config, dtype)?)
    }

    /// Loads the network, which computes in `dtype`.
    ///
    /// # Errors
    /// A tensor is missing, surplus or of another shape than the config gives.
    pub fn load(weights: &Weights, config: &Swin2SrConfig, dtype: DType) -> Result<Self, WeightsError> {
        let (body, width) = (weights.sub("swin2sr"), config.embed_dim);
        let patches = body.sub("embeddings.patch_embeddings");
        let stages = body.sub("encoder.stages");
        let stage = |i: usize| Stage::load(&stages.sub(i), config, i);
        let network = Self {
            first_convolution: Conv2d::load(&body, "first_convolution", 3, width, 3)?,
            projection: Linear::load_conv1x1(&patches, "projection", width, width)?,
            patches_layernorm: LayerNorm::load(&patches, "layernorm", width, PATCHES_EPS)?,
            stages: (0..config.depths.len()).map(stage).collect::<Result<_, _>>()?,
            layernorm: LayerNorm::load(&body, "layernorm", width, config.layer_norm_eps)?,
            conv_after_body: Conv2d::load(&body, "conv_after_body", width, width, 3)?,
            upsample: NearestConvUpsampler::load(
                &weights.sub("upsample"),
                ["conv_before_upsample", "final_convolution"],
                [width, UPSAMPLER_FEATURES],
                4,
            )?,
            img_range: config.img_range,
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
        self.upsample.factor()
    }

    /// pixels (1, H, W, 3) from 0 to 1 → (1, 4 H, 4 W, 3), f32, about from 0 to 1.
    ///
    /// # Panics
    /// If H or W is no multiple of the window's side, or there is more than one picture.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let features = self.features(&centred(pixels, self.img_range, self.dtype));
        uncentred(&self.upsample.forward_in_rows(&features), self.img_range)
    }

    /// x (1, H, W, 3) → (1, H, W, C).
    fn features(&self, x: &Tensor) -> Tensor {
        let shallow = self.first_convolution.forward(x);
        let mut h = self.patches_layernorm.forward(&self.projection.forward(&shallow));
        for stage in &self.stages {
            h = stage.forward(&h);
        }
        self.conv_after_body.forward_fused(&self.layernorm.forward(&h), None, Some(&shallow))
    }
}

impl Stage {
    fn load(weights: &Weights, config: &Swin2SrConfig, number: usize) -> Result<Self, WeightsError> {
        let width = config.embed_dim;
        let layers = weights.sub("layers");
        let layer =
            |i: usize| Swin2SrLayer::load(&layers.sub(i), config, config.num_heads[number], i % 2 == 1);
        Ok(Self {
            layers: (0..config.depths[number]).map(layer).collect::<Result<_, _>>()?,
            conv: ResidualConv::load(weights, "conv", width, config.three_convs)?,
            projection: Linear::load_conv1x1(weights, "patch_embed.projection", width, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.clone();
        for layer in &self.layers {
            h = layer.forward(&h);
        }
        self.projection.forward_fused(&self.conv.forward(&h, None), Activation::None, Some(x))
    }
}

impl Swin2SrLayer {
    fn load(
        weights: &Weights,
        config: &Swin2SrConfig,
        heads: usize,
        shifted: bool,
    ) -> Result<Self, WeightsError> {
        let (width, window) = (config.embed_dim, config.window_size);
        let norm = |name: &str| LayerNorm::load(weights, name, width, config.layer_norm_eps);
        let attention = weights.sub("attention.self");
        let linear = |name: &str, bias: bool| match bias {
            true => Linear::load(&attention, name, width, width),
            false => Linear::load_unbiased(&attention, name, width, width),
        };
        let scale = attention.tensor("logit_scale", &[heads, 1, 1])?;
        let scale: Vec<f32> = scale.to_vec().iter().map(|scale| scale.exp().min(MAX_LOGIT_SCALE)).collect();
        let offsets = attention.sub("continuous_position_bias_mlp");
        Ok(Self {
            attention: WindowAttention {
                query: linear("query", config.qkv_bias)?,
                key: linear("key", false)?,
                value: linear("value", config.qkv_bias)?,
                output: Linear::load(weights, "attention.output.dense", width, width)?,
                cosine: true,
                scale: Tensor::from_vec(scale, &[heads]),
                bias: bias_of_offsets(&biases(&offsets, heads, window)?, heads, window),
            },
            layernorm_before: norm("layernorm_before")?,
            intermediate: Linear::load(weights, "intermediate.dense", width, config.mlp_dim)?,
            output: Linear::load(weights, "output.dense", config.mlp_dim, width)?,
            layernorm_after: norm("layernorm_after")?,
            act: config.hidden_act.activation(),
            windows: Windows {
                size: window,
                shift: if shifted { config.shift_size } else { 0 },
                apart: APART,
            },
        })
    }

    /// x (B, H, W, C) → (B, H, W, C).
    fn forward(&self, x: &Tensor) -> Tensor {
        let attended = self.attention.forward(x, self.windows, None);
        let x = ops::add(x, &self.layernorm_before.forward(&attended));
        let h = self.output.forward(&self.intermediate.forward_fused(&x, self.act, None));
        ops::add(&x, &self.layernorm_after.forward(&h))
    }
}

/// The bias of each offset, query − key, and head: 16 sigmoid(MLP(offset)), ((2 w − 1)², heads). Weights alone decide about it.
fn biases(mlp: &Weights, heads: usize, window: usize) -> Result<Vec<f32>, WeightsError> {
    let first = mlp.tensor("0.weight", &[BIAS_FEATURES, 2])?.to_vec();
    let bias = mlp.tensor("0.bias", &[BIAS_FEATURES])?.to_vec();
    let second = mlp.tensor("2.weight", &[heads, BIAS_FEATURES])?.to_vec();
    let across = 2 * window - 1;
    // From −8 to 8, on a logarithmic scale.
    let coordinate = |i: usize| {
        let offset = (i as f32 - (window - 1) as f32) / (window - 1).max(1) as f32 * 8.0;
        (offset.abs() + 1.0).log2().copysign(offset) / 8f32.log2()
    };
    let mut table = Vec::with_capacity(across * across * heads);
    for (y, x) in (0..across * across).map(|i| (coordinate(i / across), coordinate(i % across))) {
        let hidden: Vec<f32> =
            first.chunks(2).zip(&bias).map(|(w, b)| (w[0] * y + w[1] * x + b).max(0.0)).collect();
        for weights in second.chunks(BIAS_FEATURES) {
            let sum: f32 = weights.iter().zip(&hidden).map(|(w, h)| w * h).sum();
            table.push(16.0 / (1.0 + (-sum).exp()));
        }
    }
    Ok(table)
}
