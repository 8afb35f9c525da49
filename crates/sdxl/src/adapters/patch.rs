//! The changes that trained weights make in one network. Each tensor is changed while it is loaded, so sampling is not slower.

use std::collections::BTreeMap;

use calotype_tensor::{DType, WeightBytes};

use super::change::{Added, Form};
use super::{Change, LoraPair, Stored};
use calotype_models::Weights;
use calotype_models::weights::{Replacement, TensorHook, to_f32};

/// Tensors that replace others, and changes that are added.
#[derive(Default)]
pub struct Patch {
    replaced: BTreeMap<String, Stored>,
    /// The changes of each tensor, with the scales of their files.
    added: BTreeMap<String, Vec<(Change, f64)>>,
}

impl Patch {
    /// Whether no tensor changes.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.added.is_empty()
    }

    /// The bytes of memory that the changed tensors take when they are packed as `store`, or without, in f32 or their own file's dtype.
    pub fn packed_bytes(&self, weights: &Weights, store: Option<DType>) -> u64 {
        let bytes = |(key, shape): (&str, &[usize])| {
            let own = self.replaced.get(key).filter(|_| !self.added.contains_key(key));
            let dtype = store.unwrap_or(own.map_or(DType::F32, Stored::dtype));
            (shape.iter().product::<usize>() * dtype.size()) as u64
        };
        weights.shapes().filter(|(key, _)| self.changes(key)).map(bytes).sum()
    }

    /// Replaces a tensor of the folder. Returns the key if the tensor was replaced already.
    pub(super) fn insert(&mut self, key: String, tensor: Stored) -> Option<String> {
        let earlier = self.replaced.insert(key.clone(), tensor);
        earlier.map(|_| key)
    }

    /// Adds a file's LoRA, by layer, and its other changes, by key, all times `scale`.
    pub(super) fn add_all(
        &mut self,
        lora: BTreeMap<String, LoraPair>,
        changes: BTreeMap<String, Change>,
        scale: f64,
    ) {
        let of_layer =
            |(path, pair): (String, LoraPair)| (format!("{path}.weight"), Change::new(Form::LowRank(pair)));
        for (key, change) in lora.into_iter().map(of_layer).chain(changes) {
            self.added.entry(key).or_default().push((change, scale));
        }
    }

    /// A tensor with its changes added, in f32, so that the result is not rounded to a file's dtype. Each change is that of the
    /// tensor without the others. `None`: the tensor has no change.
    fn merge(&self, key: &str, bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
        let changes = self.added.get(key)?;
        let mut weight = to_f32(bytes, dtype);
        // The tensor itself is needed only while a later change is computed from it.
        let own = (changes.len() > 1).then(|| weight.clone());
        for (change, scale) in changes {
            let Added { factor, values } = change.added(own.as_deref().unwrap_or(&weight), *scale);
            let factor = factor as f32;
            for (w, value) in weight.iter_mut().zip(values) {
                *w += factor * value;
            }
        }
        Some(weight)
    }
}

impl TensorHook for Patch {
    fn changes(&self, key: &str) -> bool {
        self.replaced.contains_key(key) || self.added.contains_key(key)
    }

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

#[cfg(test)]
mod tests {
    use calotype_tensor::Tensor;

    use super::*;

    /// Protects the sum W + scale · up · down, with both factors of the scale, several LoRAs on a layer, and convolutions.
    #[test]
    fn lora_is_added() {
        let down = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
        let up = Tensor::from_vec(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, -1.0], &[4, 2]);
        let mut patch = Patch::default();
        let add = |patch: &mut Patch, pair, scale| {
            patch.add_all([("layer".to_string(), pair)].into(), BTreeMap::new(), scale);
        };
        add(&mut patch, LoraPair { alpha: 1.0, ..LoraPair::new(down.clone(), up.clone()) }, 3.0);
        let bytes = bytemuck::cast_slice::<f32, u8>(&[1.0; 12]).to_vec();
        let merged = |patch: &Patch| patch.merge("layer.weight", &bytes, DType::F32).expect("LoRA");
        let product = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 7.0, 9.0, -2.0, -1.0, 0.0];
        assert_eq!(merged(&patch), product.map(|p| 1.0 + 1.5 * p));
        add(&mut patch, LoraPair::new(down, up), -1.5);
        assert_eq!(merged(&patch), [1.0; 12]);
        assert_eq!(patch.merge("other.weight", &bytes, DType::F32), None);
    }
}
