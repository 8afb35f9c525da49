//! A linear layer.

use calotype_tensor::ops::{self, Activation, LinearArgs};
use calotype_tensor::{Tensor, Weight};

use super::{Lora, Parameter};
use crate::weights::{Weights, WeightsError};

/// A linear layer, x Wᵀ + b.
#[derive(Clone)]
pub struct Linear {
    /// (out, in), packed.
    pub weight: Parameter<Weight>,
    /// (out).
    pub bias: Option<Parameter>,
    /// Whether the checkpoint stores the layer as a 1 × 1 convolution, with a weight (out, in, 1, 1).
    pub is_conv1x1: bool,
    /// Low-rank matrices whose product is added to the weight, in the shapes of a checkpoint.
    pub lora: Option<Lora>,
}

impl Linear {
    /// Loads `name.weight` (out, in) and `name.bias` (out).
    pub fn load(weights: &Weights, name: &str, input: usize, output: usize) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.linear(name, output, input, true)?;
        Ok(Self { weight, bias, is_conv1x1: false, lora: None })
    }

    /// Loads a layer without a bias.
    pub fn load_unbiased(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.linear(name, output, input, false)?;
        Ok(Self { weight, bias, is_conv1x1: false, lora: None })
    }

    /// Loads a layer that the checkpoint stores as a 1×1 convolution. Over channels-last pixels, the two are the same.
    pub fn load_conv1x1(
        weights: &Weights,
        name: &str,
        input: usize,
        output: usize,
    ) -> Result<Self, WeightsError> {
        let (weight, bias) = weights.conv(name, output, input, 1)?;
        Ok(Self { weight, bias: Some(bias), is_conv1x1: true, lora: None })
    }

    /// The shape of the weight in a checkpoint: (out, in), or (out, in, 1, 1).
    pub fn shape(&self) -> Vec<usize> {
        let [out, input, kh, kw] = self.weight.get().shape();
        if self.is_conv1x1 { vec![out, input, kh, kw] } else { vec![out, input] }
    }

    /// x (.., in) → (.., out).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.forward_fused(x, Activation::None, None)
    }

    /// act(x Wᵀ + b) + residual, fused. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`].
    pub fn forward_fused(&self, x: &Tensor, act: Activation, residual: Option<&Tensor>) -> Tensor {
        let (weight, bias) = (self.weight.get(), self.bias.as_ref().map(Parameter::get));
        match &self.lora {
            None => ops::linear(x, &weight, LinearArgs { bias: bias.as_ref(), act, residual }),
            Some(lora) if act == Activation::None => {
                lora.add_to(&ops::linear(x, &weight, LinearArgs { bias: bias.as_ref(), act, residual }), x)
            }
            // The LoRA comes before the activation, as if it were merged into the weight.
            Some(lora) => {
                let plain = LinearArgs { bias: bias.as_ref(), ..LinearArgs::default() };
                let y = lora.add_to(&ops::linear(x, &weight, plain), x);
                let y = act.apply(&y);
                residual.map_or_else(|| y.clone(), |residual| ops::add(&y, residual))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use calotype_tensor::{DType, Gradients, Weight};

    use super::*;
    use crate::nn::Trainable;

    /// Pseudo-random numbers from −1 to 1.
    fn noise(shape: &[usize], seed: usize) -> Tensor {
        let count = shape.iter().product::<usize>();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        Tensor::from_vec((0..count).map(value).collect(), shape)
    }

    /// A layer 6 → 8 with a LoRA of rank 2.
    fn layer() -> Linear {
        Linear {
            weight: Parameter::fixed(Weight::from_tensor(&noise(&[8, 6], 1))),
            bias: Some(Parameter::fixed(noise(&[8], 2))),
            is_conv1x1: false,
            lora: Some(Lora {
                down: Parameter::<Tensor>::new(noise(&[2, 6], 3)),
                up: Parameter::<Tensor>::new(noise(&[8, 2], 4)),
            }),
        }
    }

    const ALL: [Activation; 5] =
        [Activation::None, Activation::Silu, Activation::Gelu, Activation::QuickGelu, Activation::Geglu];

    /// With any activation, a layer with a LoRA gives the result of the layer with the LoRA merged into its weight.
    #[test]
    fn a_lora_is_a_merged_weight() {
        let (beside, x) = (layer(), noise(&[3, 6], 5));
        let lora = beside.lora.as_ref().unwrap();
        let (down, up, base) = (lora.down.values(), lora.up.values(), noise(&[8, 6], 1));
        let merged = (0..48).map(|i| {
            let product = |r: usize| up.f32s()[i / 6 * 2 + r] * down.f32s()[r * 6 + i % 6];
            base.f32s()[i] + product(0) + product(1)
        });
        let merged = Tensor::from_vec(merged.collect(), &[8, 6]);
        let merged =
            Linear { weight: Parameter::fixed(Weight::from_tensor(&merged)), lora: None, ..beside.clone() };
        for act in ALL {
            let residual = noise(&[3, if act == Activation::Geglu { 4 } else { 8 }], 6);
            for residual in [None, Some(&residual)] {
                let (found, want) =
                    (beside.forward_fused(&x, act, residual), merged.forward_fused(&x, act, residual));
                for (found, want) in found.to_vec().iter().zip(want.to_vec()) {
                    assert!((found - want).abs() < 1e-5, "{act:?}: {found}, expected {want}");
                }
            }
        }
    }

    /// With any activation, a LoRA's gradients equal finite differences of the layer's sum.
    #[test]
    fn a_lora_trains() {
        const H: f32 = 1e-2;
        let (layer, x) = (layer(), noise(&[3, 6], 5));
        let lora = layer.lora.as_ref().unwrap();
        let sum = |act| f64::from(ops::sum(&layer.forward_fused(&x, act, None)).f32s()[0]);
        for act in ALL {
            let y = layer.forward_fused(&x, act, None);
            for matrix in [&lora.down, &lora.up] {
                let mut gradients = Gradients::default();
                let leaf = matrix.get();
                ops::sum(&layer.forward_fused(&x, act, None))
                    .backward_with(Tensor::full(&[], 1.0, DType::F32), &mut |leaf, grad| {
                        gradients.insert(leaf, grad)
                    });
                let gradient = gradients.take(&leaf).unwrap_or_else(|| panic!("{act:?}: no gradient"));
                let values = matrix.values().to_vec();
                for i in 0..values.len() {
                    let moved = |h: f32| {
                        let mut values = values.clone();
                        values[i] += h;
                        matrix.set_values(&values);
                        sum(act)
                    };
                    let want = (moved(H) - moved(-H)) / f64::from(2.0 * H);
                    let found = f64::from(gradient.f32s()[i]);
                    assert!(
                        (found - want).abs() < 2e-2 * want.abs().max(1.0),
                        "{act:?} {i}: {found}, expected {want}"
                    );
                }
                matrix.set_values(&values);
            }
            assert_eq!(y.to_vec(), layer.forward_fused(&x, act, None).to_vec(), "the matrices are as before");
        }
    }
}
