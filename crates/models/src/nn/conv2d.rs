//! A convolution.

use calotype_tensor::ops::{self, Conv, ConvArgs, Padding};
use calotype_tensor::{DType, Tensor, Weight};

use super::{Lora, Parameter};
use crate::weights::{Weights, WeightsError};

/// A 3×3 or 1×1 convolution with bias.
#[derive(Clone)]
pub struct Conv2d {
    /// (O, I, k, k), packed.
    pub weight: Parameter<Weight>,
    /// (O).
    pub bias: Parameter,
    /// Stride and padding.
    pub conv: Conv,
    /// Low-rank kernels whose product is added to the weight.
    pub lora: Option<Lora>,
}

impl Conv2d {
    /// Loads `name.weight` and `name.bias` of a `kernel` × `kernel` convolution that keeps the image's size.
    pub fn load(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
        kernel: usize,
    ) -> Result<Self, WeightsError> {
        Self::load_with(weights, name, input, output, kernel, Conv { stride: 1, padding: Padding::Same })
    }

    /// Loads a convolution with any stride and padding.
    pub fn load_with(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
        kernel: usize,
        conv: Conv,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.conv(name, output, input, kernel)?;
        Ok(Self { weight, bias, conv, lora: None })
    }

    /// Loads a convolution without bias that keeps the image's size. Its bias is 0.
    pub fn load_unbiased(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
        kernel: usize,
    ) -> Result<Self, WeightsError> {
        let weight = weights.conv_weight(name, output, input, kernel)?;
        let bias = Parameter::fixed(Tensor::zeros(&[output], DType::F32));
        Ok(Self { weight, bias, conv: Conv { stride: 1, padding: Padding::Same }, lora: None })
    }

    /// x (B, H, W, I) → (B, Ho, Wo, O).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_fused(x, None, None)
    }

    /// conv(x) + shift (B, O) + residual (B, Ho, Wo, O), fused.
    pub fn forward_fused(&self, x: &Tensor, shift: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        let bias = self.bias.get();
        let y =
            ops::conv2d(x, &self.weight.get(), self.conv, ConvArgs { bias: Some(&bias), shift, residual });
        match &self.lora {
            None => y,
            Some(lora) => lora.add_to_conv(&y, x, self.conv),
        }
    }
}

#[cfg(test)]
mod tests {
    use calotype_tensor::{DType, Gradients};

    use super::*;
    use crate::nn::Trainable;

    /// Pseudo-random numbers from −1 to 1.
    fn noise(shape: &[usize], seed: usize) -> Tensor {
        let count = shape.iter().product::<usize>();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        Tensor::from_vec((0..count).map(value).collect(), shape)
    }

    /// The kinds of convolutions in a UNet: kernel, stride and padding.
    const KINDS: [(usize, Conv); 4] = [
        (3, Conv { stride: 1, padding: Padding::Same }),
        (1, Conv { stride: 1, padding: Padding::Same }),
        (3, Conv { stride: 2, padding: Padding::Same }),
        (3, Conv { stride: 2, padding: Padding::BottomRight }),
    ];

    /// A convolution 3 → 4 with a LoRA of rank 2.
    fn layer(kernel: usize, conv: Conv) -> Conv2d {
        let weight = [4, 3, kernel, kernel];
        let lora = Lora::zeros(2, &weight, calotype_tensor::Device::Cpu);
        for (matrix, seed) in [(&lora.down, 3), (&lora.up, 4)] {
            matrix.set_values(&noise(matrix.get().shape(), seed).to_vec());
        }
        Conv2d {
            weight: Parameter::fixed(Weight::from_tensor(&noise(&weight, 1))),
            bias: Parameter::fixed(noise(&[4], 2)),
            conv,
            lora: Some(lora),
        }
    }

    /// A convolution with a LoRA gives the result of the convolution with the LoRA merged into its weight, with what is added
    /// to the result.
    #[test]
    fn a_lora_is_a_merged_kernel() {
        for (kernel, conv) in KINDS {
            let (beside, x) = (layer(kernel, conv), noise(&[2, 5, 6, 3], 5));
            let lora = beside.lora.as_ref().unwrap();
            let (down, up) = (lora.down.values(), lora.up.values());
            let (inner, base) = (3 * kernel * kernel, noise(&[4, 3, kernel, kernel], 1));
            let merged = (0..4 * inner).map(|i| {
                let product = |r: usize| up.f32s()[i / inner * 2 + r] * down.f32s()[r * inner + i % inner];
                base.f32s()[i] + product(0) + product(1)
            });
            let merged = Tensor::from_vec(merged.collect(), base.shape());
            let weight = Parameter::fixed(Weight::from_tensor(&merged));
            let merged = Conv2d { weight, lora: None, ..beside.clone() };
            let plain = merged.forward(&x);
            let (shift, residual) = (noise(&[2, 4], 6), noise(plain.shape(), 7));
            for (shift, residual) in [(None, None), (Some(&shift), Some(&residual))] {
                let found = beside.forward_fused(&x, shift, residual);
                let want = merged.forward_fused(&x, shift, residual);
                assert_eq!(found.shape(), want.shape());
                for (found, want) in found.to_vec().iter().zip(want.to_vec()) {
                    assert!((found - want).abs() < 1e-5, "{kernel} {conv:?}: {found}, expected {want}");
                }
            }
        }
    }

    /// A LoRA's gradients equal finite differences of the sum of the layer's squares.
    #[test]
    fn a_lora_trains() {
        const H: f32 = 1e-2;
        for (kernel, conv) in KINDS {
            let (layer, x) = (layer(kernel, conv), noise(&[2, 5, 6, 3], 5));
            let lora = layer.lora.as_ref().unwrap();
            let sum = || {
                let y = layer.forward(&x);
                ops::mse(&y, &Tensor::zeros(y.shape(), DType::F32), None)
            };
            for matrix in [&lora.down, &lora.up] {
                let (mut gradients, leaf) = (Gradients::default(), matrix.get());
                sum().backward_with(Tensor::full(&[], 1.0, DType::F32), &mut |leaf, grad| {
                    gradients.insert(leaf, grad)
                });
                let gradient = gradients.take(&leaf).expect("a gradient");
                let values = matrix.values().to_vec();
                for i in 0..values.len() {
                    let moved = |h: f32| {
                        let mut values = values.clone();
                        values[i] += h;
                        matrix.set_values(&values);
                        f64::from(sum().to_vec()[0])
                    };
                    let want = (moved(H) - moved(-H)) / f64::from(2.0 * H);
                    let found = f64::from(gradient.f32s()[i]);
                    let close = (found - want).abs() < 1e-2 * want.abs().max(0.1);
                    assert!(close, "{kernel} {conv:?} {i}: {found}, expected {want}");
                }
                matrix.set_values(&values);
            }
        }
    }
}
