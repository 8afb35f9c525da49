//! The changes that trained weights make in one network. Each tensor is changed while it is loaded, so sampling is not slower.

use std::collections::BTreeMap;

use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{DType, Tensor, Weight, WeightBytes};

use super::{LoraPair, Stored};
use calotype_models::weights::{Replacement, TensorHook, to_f32};

/// Tensors that replace others, and LoRA that is added.
#[derive(Default)]
pub struct Patch {
    replaced: BTreeMap<String, Stored>,
    added: BTreeMap<String, Vec<Delta>>,
}

/// scale · up · down.
struct Delta {
    pair: LoraPair,
    scale: f32,
}

impl Patch {
    /// Whether no tensor changes.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.added.is_empty()
    }

    /// Replaces a tensor of the folder. Returns the key if the tensor was replaced already.
    pub(super) fn insert(&mut self, key: String, tensor: Stored) -> Option<String> {
        let earlier = self.replaced.insert(key.clone(), tensor);
        earlier.map(|_| key)
    }

    /// Adds LoRA to a layer, with its own scale times `scale`.
    pub(super) fn add(&mut self, path: &str, pair: LoraPair, scale: f64) {
        let scale = (pair.scale() * scale) as f32;
        self.added.entry(format!("{path}.weight")).or_default().push(Delta { pair, scale });
    }

    /// A tensor with LoRA added, in f32, so that the result is not rounded to a file's dtype. `None`: the tensor has no LoRA.
    fn merge(&self, key: &str, bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
        let deltas = self.added.get(key)?;
        let mut weight = to_f32(bytes, dtype);
        for delta in deltas {
            let product = product(&delta.pair);
            for (w, p) in weight.iter_mut().zip(product.f32s()) {
                *w += delta.scale * p;
            }
        }
        Some(weight)
    }
}

impl TensorHook for Patch {
    fn replace(&self, key: &str, stored: &dyn WeightBytes, dtype: DType) -> Option<Replacement> {
        let replaced = self.replaced.get(key);
        let (from, dtype) = match replaced {
            Some(tensor) => (tensor as &dyn WeightBytes, tensor.dtype()),
            None => (stored, dtype),
        };
        if let Some(values) = self.merge(key, from.bytes(), dtype) {
            from.release();
            return Some(Replacement::Values(values));
        }
        replaced.map(|tensor| Replacement::Stored(Box::new(tensor.clone()), dtype))
    }
}

/// up (out, rank) · down (rank, n) → (out, n), f32. For a convolution, n is in · k · k.
fn product(pair: &LoraPair) -> Tensor {
    let (rank, out) = (pair.rank(), pair.up.dim(0));
    let inner = pair.down.numel() / rank;
    let down = pair.down.f32s();
    let transposed = (0..inner * rank).map(|i| down[i % rank * inner + i / rank]).collect(); // (n, rank)
    let weight = Weight::from_tensor(&Tensor::from_vec(transposed, &[inner, rank]));
    ops::linear(&pair.up.reshape(&[out, rank]), &weight, LinearArgs::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the sum W + scale · up · down, with both factors of the scale, several LoRAs on a layer, and convolutions.
    #[test]
    fn lora_is_added() {
        let down = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let up = Tensor::from_vec(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, -1.0], &[4, 2]);
        let mut patch = Patch::default();
        patch.add("layer", LoraPair { alpha: 1.0, ..LoraPair::new(down.clone(), up.clone()) }, 3.0);
        let bytes = bytemuck::cast_slice::<f32, u8>(&[1.0; 12]).to_vec();
        let merged = |patch: &Patch| patch.merge("layer.weight", &bytes, DType::F32).expect("LoRA");
        let product = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 7.0, 9.0, -2.0, -1.0, 0.0];
        assert_eq!(merged(&patch), product.map(|p| 1.0 + 1.5 * p));
        patch.add("layer", LoraPair::new(down, up), -1.5);
        assert_eq!(merged(&patch), [1.0; 12]);
        assert_eq!(patch.merge("other.weight", &bytes, DType::F32), None);
    }
}
