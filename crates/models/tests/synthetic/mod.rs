//! Networks whose weights a formula makes: files of them would be larger than golden files should be. The formula is that of
//! `tools/reference/golden/super_resolution.py`.

#![allow(dead_code)] // each test binary uses its part

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::Value;

/// A network's weights by key, with their shapes, and its `config.json`.
pub struct Synthetic {
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    pub config: Option<String>,
}

impl Synthetic {
    /// The network of a golden file.
    pub fn of(golden: &Path) -> Synthetic {
        let bytes = std::fs::read(golden).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        let weights: Value = serde_json::from_str(&metadata["weights"]).unwrap();
        let mut weights: Vec<(&String, &Value)> = weights.as_object().unwrap().iter().collect();
        weights.sort_by_key(|(key, _)| key.as_str());
        let tensor = |(n, (key, value)): (usize, (&String, &Value))| {
            let shape: Vec<usize> =
                value[0].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
            let [a, b] = [1, 2].map(|i| value[i].as_f64().unwrap() as f32);
            let values = (0..shape.iter().product()).map(|i| a + b * uniform(n, i)).collect();
            (key.clone(), shape, values)
        };
        let tensors = weights.into_iter().enumerate().map(tensor).collect();
        Synthetic { tensors, config: metadata.get("config").cloned() }
    }

    /// Leaves only tensors that `keep` has something to say about: their keys.
    pub fn renamed(mut self, keep: impl Fn(&str) -> Option<String>) -> Synthetic {
        self.tensors = (self.tensors.into_iter())
            .filter_map(|(key, shape, values)| Some((keep(&key)?, shape, values)))
            .collect();
        self
    }

    /// Writes the weights as safetensors.
    pub fn write(&self, path: &Path) {
        let bytes: Vec<Vec<u8>> = (self.tensors.iter())
            .map(|(.., values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let view = |((key, shape, _), bytes): (&(String, Vec<usize>, Vec<f32>), _)| {
            (key.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        };
        let views = self.tensors.iter().zip(bytes.iter().map(Vec::as_slice)).map(view);
        std::fs::write(path, serialize(views, None).unwrap()).unwrap();
    }

    /// Writes a folder as transformers saves one.
    pub fn write_folder(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        self.write(&folder.join("model.safetensors"));
        if let Some(config) = &self.config {
            std::fs::write(folder.join("config.json"), config).unwrap();
        }
    }
}

/// A number from −1 to 1.
fn uniform(seed: usize, i: usize) -> f32 {
    let mut x = (i as u32).wrapping_add((seed as u32).wrapping_mul(0x9e37_79b1));
    for (shift, factor) in [(16, 0x85eb_ca6b_u32), (13, 0xc2b2_ae35), (16, 1)] {
        x = (x ^ (x >> shift)).wrapping_mul(factor);
    }
    (x >> 8) as f32 / (1 << 23) as f32 - 1.0
}
