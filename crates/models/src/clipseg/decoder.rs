//! CLIPSeg's decoder.

use calotype_tensor::ops::{self, Activation};
use calotype_tensor::{Tensor, Weight};

use crate::config::{ClipSegConfig, HiddenAct};
use crate::nn::{ClipEncoderLayer, ClipLayerConfig, Conv2d, Linear, Parameter};
use crate::weights::{Weights, WeightsError};

/// The decoder: from states of the vision tower and a prompt to a logit for each pixel.
#[derive(Clone)]
pub struct ClipSegDecoder {
    /// Projection → R: what the states are multiplied by.
    pub film_mul: Linear,
    /// Projection → R: what is added to the states.
    pub film_add: Linear,
    /// C → R, for each of the tower's layers that are taken.
    pub reduces: Vec<Linear>,
    /// As many layers, which normalise each sum rather than each input.
    pub layers: Vec<ClipEncoderLayer>,
    /// `transposed_convolution`.
    pub transposed_convolution: UpsamplingHead,
    conditional_layer: i64,
}

/// From the decoder's states, an image, to a logit for each pixel.
#[derive(Clone)]
pub enum UpsamplingHead {
    /// One transposed convolution R → 1 with the patch's side.
    Simple(TransposedConvolution),
    /// `transposed_convolution.0`, `.2` and `.4`, with ReLU between: a convolution R → R, and transposed convolutions R → R / 2 → 1
    /// with a fourth of the patch's side.
    Complex(Conv2d, TransposedConvolution, TransposedConvolution),
}

/// A transposed convolution whose stride is its kernel's side: each pixel becomes a square of its own.
#[derive(Clone)]
pub struct TransposedConvolution {
    /// I → k² · O: row by row of the square, column by column, channels last.
    pub linear: Linear,
    /// The side of the kernel, and the stride.
    pub kernel: usize,
}

impl ClipSegDecoder {
    pub(super) fn load(weights: &Weights, config: &ClipSegConfig) -> Result<Self, WeightsError> {
        let (width, projection) = (config.reduce_dim, config.text.projection_dim);
        let sizes = ClipLayerConfig {
            width,
            intermediate: config.decoder_intermediate_size,
            heads: config.decoder_num_attention_heads,
            act: HiddenAct::Relu,
            eps: config.vision.layer_norm_eps,
            causal: false,
        };
        let count = 0..config.extract_layers.len();
        let (reduces, layers) = (weights.sub("reduces"), weights.sub("layers"));
        let reduce = |i: usize| Linear::load(&reduces, &i.to_string(), config.vision.hidden_size, width);
        let layer = |i: usize| ClipEncoderLayer::load(&layers.sub(i), sizes);
        Ok(Self {
            film_mul: Linear::load(weights, "film_mul", projection, width)?,
            film_add: Linear::load(weights, "film_add", projection, width)?,
            reduces: count.clone().map(reduce).collect::<Result<_, _>>()?,
            layers: count.map(layer).collect::<Result<_, _>>()?,
            transposed_convolution: UpsamplingHead::load(weights, config)?,
            conditional_layer: config.conditional_layer,
        })
    }

    /// states, each (1, 1 + patches, C), and a prompt (1, projection) → logits (side, side).
    pub(super) fn forward(&self, states: &[Tensor], prompt: &Tensor) -> Tensor {
        let mut x: Option<Tensor> = None; // (1, T, R)
        for (i, (state, (layer, reduce))) in
            states.iter().zip(self.layers.iter().zip(&self.reduces)).enumerate()
        {
            let mut sum = reduce.forward_fused(state, Activation::None, x.as_ref());
            if i as i64 == self.conditional_layer {
                let every_token = |film: &Linear| {
                    ops::embedding(&film.forward(prompt), &vec![0; sum.dim(1)]).reshape(sum.shape())
                };
                sum = ops::add(&ops::mul(&every_token(&self.film_mul), &sum), &every_token(&self.film_add));
            }
            x = Some(layer.forward_post_norm(&sum));
        }
        let x = x.expect("at least one layer");
        let (tokens, width) = (x.dim(1), x.dim(2));
        let side = (tokens - 1).isqrt();
        let patches = ops::slice_batch(&x.reshape(&[tokens, width]), 1, tokens - 1);
        let logits = self.transposed_convolution.forward(&patches.reshape(&[1, side, side, width]));
        logits.reshape(&[logits.dim(1), logits.dim(2)])
    }
}

impl UpsamplingHead {
    fn load(weights: &Weights, config: &ClipSegConfig) -> Result<Self, WeightsError> {
        const NAME: &str = "transposed_convolution";
        let (width, patch) = (config.reduce_dim, config.vision.patch_size);
        if !config.use_complex_transposed_convolution {
            return Ok(Self::Simple(TransposedConvolution::load(&weights.sub(NAME), width, 1, patch)?));
        }
        let layers = weights.sub(NAME);
        Ok(Self::Complex(
            Conv2d::load(&layers, "0", width, width, 3)?,
            TransposedConvolution::load(&layers.sub(2), width, width / 2, patch / 4)?,
            TransposedConvolution::load(&layers.sub(4), width / 2, 1, patch / 4)?,
        ))
    }

    /// x (1, h, w, R) → (1, H, W, 1).
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Simple(only) => only.forward(x, Activation::None),
            Self::Complex(conv, first, second) => {
                let x = ops::relu(&conv.forward(x));
                second.forward(&first.forward(&x, Activation::Relu), Activation::None)
            }
        }
    }
}

impl TransposedConvolution {
    /// Loads `weight` (I, O, k, k) and `bias` (O).
    fn load(weights: &Weights, input: usize, output: usize, kernel: usize) -> Result<Self, WeightsError> {
        let file = weights.tensor("weight", &[input, output, kernel, kernel])?.to_vec();
        let bias = weights.tensor("bias", &[output])?.to_vec();
        let taps = kernel * kernel;
        let row = |row: usize| {
            let (tap, channel) = (row / output, row % output);
            let file = &file;
            (0..input).map(move |i| file[(i * output + channel) * taps + tap])
        };
        let matrix = Tensor::from_vec((0..taps * output).flat_map(row).collect(), &[taps * output, input]);
        let bias = Tensor::from_vec(bias.repeat(taps), &[taps * output]);
        let linear = Linear {
            weight: Parameter::fixed(Weight::from_tensor(&matrix)),
            bias: Some(Parameter::fixed(bias)),
            is_conv1x1: false,
            lora: None,
        };
        Ok(Self { linear, kernel })
    }

    /// x (1, h, w, I) → act(..) (1, k · h, k · w, O).
    fn forward(&self, x: &Tensor, act: Activation) -> Tensor {
        let (height, width, k) = (x.dim(1), x.dim(2), self.kernel);
        let squares = self.linear.forward_fused(x, act, None); // (1, h, w, k · k · O)
        let channels = squares.last_dim() / (k * k);
        // Each row of a square, k · O numbers, goes to its line of the image.
        let source = |i: usize| ((i / (k * width) * width + i % width) * k + i / width % k) as u32;
        let rows: Vec<u32> = (0..height * k * width).map(source).collect();
        let rows = ops::embedding(&squares.reshape(&[height * width * k, k * channels]), &rows);
        rows.reshape(&[1, k * height, k * width, channels])
    }
}
