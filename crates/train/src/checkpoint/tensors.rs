//! The tensors of a checkpoint: parameters and their optimizer states. They are written one after the other, so that no second
//! copy of all of them is in memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use calotype_tensor::DType;
use calotype_tensor::io::Mmap;
use safetensors::Dtype;

use crate::trainer::Trainer;
use crate::trainer::trained::TrainedParameter;
use calotype_models::shorten;
use calotype_models::weights::{Header, WeightsError, to_f32};
use calotype_sdxl::adapters::safetensors_header;

/// The most bytes of a header, which has a line for each tensor.
const MAX_HEADER: u64 = 16 << 20;

/// The range of each tensor's bytes in the file, by key.
pub(super) type Located = BTreeMap<String, Range<usize>>;

/// The tensors of a parameter in the order of the file, with key and shape. An optimizer's tensor with as many values as the
/// parameter has the parameter's shape. Others have one dimension.
fn layout(trained: &TrainedParameter) -> Vec<(String, Vec<usize>)> {
    let (shape, count) = (&trained.shape, trained.count());
    let mut all = vec![(trained.name.clone(), shape.clone())];
    for (name, values) in &trained.state.tensors {
        let shape = if values.numel() == count { shape.clone() } else { vec![values.numel()] };
        all.push((format!("{}.{name}", trained.name), shape));
    }
    all
}

/// The most bytes of a `state.safetensors`: the trainer's tensors and a header.
pub(super) fn most_bytes(trainer: &Trainer) -> u64 {
    let values = |(_, shape): (String, Vec<usize>)| shape.iter().product::<usize>() as u64;
    MAX_HEADER + 4 * trainer.trained().iter().flat_map(layout).map(values).sum::<u64>()
}

/// Writes `state.safetensors`.
pub(super) fn write(to: &mut dyn Write, trainer: &Trainer) -> io::Result<()> {
    let layout: Vec<_> = trainer.trained().iter().flat_map(layout).collect();
    let entries = layout.iter().map(|(key, shape)| (key.as_str(), DType::F32, shape.as_slice()));
    let header = safetensors_header(&BTreeMap::new(), entries);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(header.as_bytes())?;
    for trained in trainer.trained() {
        to.write_all(bytemuck::cast_slice(&trained.parameter.values().to_vec()))?;
        for (_, values) in &trained.state.tensors {
            to.write_all(bytemuck::cast_slice(&values.to_vec()))?;
        }
    }
    Ok(())
}

/// Finds the trainer's tensors in a file, by name and shape. Any other tensor is an error.
pub(super) fn locate(path: &Path, file: &[u8], trainer: &Trainer) -> Result<Located, WeightsError> {
    let header =
        Header::read(file).map_err(|problem| WeightsError::File { path: path.to_path_buf(), problem })?;
    let mut found: BTreeMap<_, _> =
        header.tensors.into_iter().map(|(key, info, bytes)| (key, (info, bytes))).collect();
    let mut located = Located::new();
    for (key, shape) in trainer.trained().iter().flat_map(layout) {
        let Some((info, bytes)) = found.remove(&key) else {
            return Err(WeightsError::Missing {
                file: path.to_path_buf(),
                key,
                expected: format!("{shape:?}"),
            });
        };
        if (info.dtype, &info.shape) != (Dtype::F32, &shape) {
            return Err(WeightsError::Mismatch {
                file: path.to_path_buf(),
                key,
                expected: format!("F32 {shape:?}"),
                found: format!("{:?} {}", info.dtype, shorten(&format!("{:?}", info.shape))),
            });
        }
        located.insert(key, bytes);
    }
    match found.first_key_value() {
        None => Ok(located),
        Some((first, _)) => {
            Err(WeightsError::Surplus { file: path.to_path_buf(), first: shorten(first), count: found.len() })
        }
    }
}

/// Restores a parameter's values and its optimizer's state. `located` must be of this file and this trainer.
pub(super) fn fill(file: &Mmap, located: &Located, trained: &mut TrainedParameter) {
    let read = |key: &str| {
        let range = located.get(key).cloned().unwrap_or_default();
        let values = to_f32(&file[range.clone()], DType::F32);
        file.release(range);
        values
    };
    trained.parameter.set_values(&read(&trained.name));
    for (name, values) in &mut trained.state.tensors {
        values.write(&read(&format!("{}.{name}", trained.name)));
    }
}
