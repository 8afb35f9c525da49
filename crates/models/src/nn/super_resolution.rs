//! What Swin2SR and SwinIR share besides attention: the convolutions at the end of a stage, and the upsampler.

use std::ops::Range;

use calotype_tensor::{DType, Tensor, ops};

use super::Conv2d;
use crate::weights::{Weights, WeightsError};

/// The slope of the upsampler's first activation below 0, PyTorch's default, and that of all others.
const FIRST_SLOPE: f32 = 0.01;
const SLOPE: f32 = 0.2;
/// The rows above and below a strip that are computed with it: those that a row depends on (3), and as many more as make the tiles of the
/// convolutions' algorithm the same as those of the whole image at each level.
const HALO: usize = 12;
/// A strip's rows are a multiple of this.
const ROWS: usize = 8;
/// The pixels of an image that is enlarged at once. 32 × 1024 take 130 MB for each tensor in f32.
const AT_ONCE: usize = 1 << 15;

/// The mean colour of the pictures of the training (DIV2K), which networks work around.
const MEAN: [f32; 3] = [0.4488, 0.4371, 0.4040];

/// Pixels (.., 3) from 0 to 1, as networks take them.
pub(crate) fn centred(pixels: &Tensor, range: f32, dtype: DType) -> Tensor {
    let values = pixels.to_vec();
    let values: Vec<f32> = values.iter().enumerate().map(|(i, x)| (x - MEAN[i % 3]) * range).collect();
    pixels.device().upload(&values, pixels.shape()).to_dtype(dtype)
}

/// The way back, in f32.
pub(crate) fn uncentred(y: &Tensor, range: f32) -> Tensor {
    let values: Vec<f32> = y.to_vec().iter().enumerate().map(|(i, y)| y / range + MEAN[i % 3]).collect();
    y.device().upload(&values, y.shape())
}

/// A 3×3 convolution, or three with fewer channels between them.
#[derive(Clone)]
pub enum ResidualConv {
    /// "1conv".
    One(Conv2d),
    /// "3conv", the modules 0, 2 and 4 of a list: to a quarter of the channels, 1×1, and back.
    Three([Conv2d; 3]),
}

impl ResidualConv {
    /// Loads `name`, or `name.0`, `name.2` and `name.4`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        channels: usize,
        three: bool,
    ) -> Result<Self, WeightsError> {
        if !three {
            return Ok(Self::One(Conv2d::load(weights, name, channels, channels, 3)?));
        }
        let conv = |i: usize, input, output, kernel| {
            Conv2d::load(weights, &format!("{name}.{i}"), input, output, kernel)
        };
        let quarter = channels / 4;
        Ok(Self::Three([
            conv(0, channels, quarter, 3)?,
            conv(2, quarter, quarter, 1)?,
            conv(4, quarter, channels, 3)?,
        ]))
    }

    /// x (B, H, W, C) → (B, H, W, C), + residual.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Tensor {
        match self {
            Self::One(conv) => conv.forward_fused(x, None, residual),
            Self::Three([first, middle, last]) => {
                let h = ops::leaky_relu(&first.forward(x), SLOPE);
                let h = ops::leaky_relu(&middle.forward(&h), SLOPE);
                last.forward_fused(&h, None, residual)
            }
        }
    }
}

/// Enlarges by repeating pixels, and convolutions: "nearest+conv".
#[derive(Clone)]
pub struct NearestConvUpsampler {
    /// C → features.
    pub conv_before_upsample: Conv2d,
    /// After the first enlarging.
    pub conv_up1: Conv2d,
    /// After the second. A network that only doubles has none.
    pub conv_up2: Option<Conv2d>,
    /// At the final size.
    pub conv_hr: Conv2d,
    /// features → 3.
    pub conv_last: Conv2d,
}

impl NearestConvUpsampler {
    /// Loads an upsampler whose first and last convolution have these names.
    pub(crate) fn load(
        weights: &Weights,
        [first, last]: [&str; 2],
        [channels, features]: [usize; 2],
        upscale: usize,
    ) -> Result<Self, WeightsError> {
        let conv = |name: &str| Conv2d::load(weights, name, features, features, 3);
        Ok(Self {
            conv_before_upsample: Conv2d::load(weights, first, channels, features, 3)?,
            conv_up1: conv("conv_up1")?,
            conv_up2: (upscale == 4).then(|| conv("conv_up2")).transpose()?,
            conv_hr: conv("conv_hr")?,
            conv_last: Conv2d::load(weights, last, features, 3, 3)?,
        })
    }

    /// How much larger an image becomes.
    pub fn factor(&self) -> usize {
        if self.conv_up2.is_some() { 4 } else { 2 }
    }

    /// x (B, H, W, C) → (B, factor · H, factor · W, 3).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let up =
            |x: &Tensor, conv: &Conv2d| ops::leaky_relu(&conv.forward(&ops::upsample_nearest2x(x)), SLOPE);
        let h = ops::leaky_relu(&self.conv_before_upsample.forward(x), FIRST_SLOPE);
        let h = up(&h, &self.conv_up1);
        let h = self.conv_up2.as_ref().map_or(h.clone(), |conv| up(&h, conv));
        let h = ops::leaky_relu(&self.conv_hr.forward(&h), SLOPE);
        self.conv_last.forward(&h)
    }

    /// The same of one image (1, H, W, C), in strips of rows, so that memory does not grow with the image. The bytes are those of the
    /// whole.
    pub fn forward_in_rows(&self, x: &Tensor) -> Tensor {
        self.in_rows(x, AT_ONCE)
    }

    fn in_rows(&self, x: &Tensor, at_once: usize) -> Tensor {
        let [batch, height, width] = [0, 1, 2].map(|i| x.dim(i));
        assert_eq!(batch, 1, "one image");
        let factor = self.factor();
        let strips: Vec<Tensor> = strips(height, (at_once / width.max(1)).max(ROWS) / ROWS * ROWS)
            .map(|own| {
                let seen = own.start.saturating_sub(HALO)..height.min(own.end + HALO);
                let y = self.forward(&rows(x, seen.clone()));
                rows(&y, factor * (own.start - seen.start)..factor * (own.end - seen.start))
            })
            .collect();
        let flat: Vec<Tensor> = strips.iter().map(|strip| strip.reshape(&strip.shape()[1..])).collect();
        let all = ops::cat_batch(&flat.iter().collect::<Vec<_>>());
        all.reshape(&[1, factor * height, factor * width, 3])
    }
}

/// Strips of `rows` rows. What is left over belongs to the last one.
fn strips(height: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (height / rows).max(1);
    (0..count).map(move |i| i * rows..if i + 1 == count { height } else { (i + 1) * rows })
}

/// Rows of an image (1, H, W, C).
fn rows(x: &Tensor, rows: Range<usize>) -> Tensor {
    let own = ops::slice_batch(&x.reshape(&x.shape()[1..]), rows.start, rows.len());
    own.reshape(&[1, rows.len(), x.dim(2), x.dim(3)])
}

#[cfg(test)]
mod tests {
    use calotype_tensor::Weight;

    use super::*;
    use crate::nn::Parameter;

    fn noise(shape: &[usize], seed: usize) -> Tensor {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        Tensor::from_vec((0..shape.iter().product()).map(value).collect(), shape)
    }

    fn conv(input: usize, output: usize, seed: usize) -> Conv2d {
        Conv2d {
            weight: Parameter::fixed(Weight::from_tensor(&noise(&[output, input, 3, 3], seed))),
            bias: Parameter::fixed(noise(&[output], seed + 1)),
            conv: ops::Conv { stride: 1, padding: ops::Padding::Same },
            lora: None,
        }
    }

    /// Protects pictures against seams: strips of rows give the bytes of the whole, in f32 and bf16, also where the height is no
    /// multiple of a strip, for both factors.
    #[test]
    fn strips_are_the_whole() {
        for (factor, height) in [(4, 64), (4, 75), (2, 83)] {
            let upsampler = NearestConvUpsampler {
                conv_before_upsample: conv(40, 64, 1),
                conv_up1: conv(64, 64, 2),
                conv_up2: (factor == 4).then(|| conv(64, 64, 3)),
                conv_hr: conv(64, 64, 4),
                conv_last: conv(64, 3, 5),
            };
            for dtype in [DType::F32, DType::BF16] {
                let x = noise(&[1, height, 18, 40], 6).to_dtype(dtype);
                let whole = upsampler.forward(&x);
                assert_eq!(whole.shape(), [1, factor * height, factor * 18, 3]);
                let bits = |x: &Tensor| x.to_vec().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                for rows in [8, 16, 24] {
                    let strips = upsampler.in_rows(&x, rows * 18);
                    assert!(bits(&strips) == bits(&whole), "{factor} × {height}, {dtype}, {rows} rows");
                }
            }
        }
    }
}
