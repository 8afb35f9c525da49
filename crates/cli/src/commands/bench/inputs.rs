//! The inputs of a benchmark: weights, and a file of tensors.

use std::path::{Path, PathBuf};

use calotype_models::weights::{Network, Weights, store_for};
use calotype_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::failure::Failure;

/// Weights as in `calotype predict`.
pub(super) fn weights(model: &Path, layout: Network, dtype: DType) -> Result<Weights, Failure> {
    Ok(Weights::open(model, layout, None, store_for(dtype)).map_err(calotype_sdxl::Error::from)?)
}

/// A safetensors file of f32 inputs.
pub(super) struct Inputs {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Inputs {
    pub(super) fn read(path: &Path) -> Result<Inputs, Failure> {
        let bytes = std::fs::read(path).map_err(|e| Failure::BadInput(format!("{}: {e}", path.display())))?;
        Ok(Inputs { path: path.into(), bytes })
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, Failure> {
        let bad = |what: String| Failure::BadInput(format!("{}: {name}: {what}", self.path.display()));
        let file = SafeTensors::deserialize(&self.bytes).map_err(|e| bad(e.to_string()))?;
        let view = file.tensor(name).map_err(|e| bad(e.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("expected F32, found {:?}", view.dtype())));
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        Ok(Tensor::from_vec(values.collect(), view.shape()))
    }
}
