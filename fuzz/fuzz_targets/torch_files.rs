//! PyTorch's files of weights: a zip of storages with a pickle.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{check_error, new_folder};
use calotype_models::weights::{Network, Weights};
use calotype_models::{SwinIr, WeightsError};
use calotype_tensor::DType;
use libfuzzer_sys::fuzz_target;

static PATH: LazyLock<PathBuf> = LazyLock::new(|| new_folder("torch").join("weights.pth"));

fuzz_target!(|input: &[u8]| {
    fs::write(&*PATH, input).unwrap();
    take_all().unwrap_or_else(check_error);
    if let Err(error) = SwinIr::open(&PATH, DType::F32) {
        check_error(error);
    }
});

/// Takes each tensor in the shape that the file gives it.
fn take_all() -> Result<(), WeightsError> {
    let weights = Weights::open_file(&PATH, Network::UNet, None)?;
    for (key, shape) in weights.shapes() {
        if let Err(error) = weights.tensor(key, shape) {
            check_error(error);
        }
    }
    weights.finish()
}
