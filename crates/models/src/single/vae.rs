//! VAEs in a single file: in a whole model, or alone in either layout.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::derive::{self, Shapes};
use super::{Names, Slice, below, check_known, kind, read, written_configs};
use crate::json::ConfigError;
use crate::weights::Network;

/// The VAE of a whole model's file, if the file has one.
pub(super) fn in_model(path: &Path, all: &Shapes) -> Option<Slice> {
    derive::any_below(all, kind::VAE).then(|| original(path, all, kind::VAE))
}

/// The VAE in the file at `path`. The file is a whole model, or has the VAE alone, by the original names or by diffusers'.
///
/// # Errors
/// The file is not a safetensors file, has no VAE, or has a tensor that is unknown.
pub(crate) fn vae(path: &Path) -> Result<Slice, ConfigError> {
    let (all, header) = read(path)?;
    let mut found = match in_model(path, &all) {
        Some(found) => found,
        None => alone(path, &all)?,
    };
    let written = written_configs(path, &header)?;
    if written["vae"].is_object() {
        found.config = written["vae"].clone();
    }
    Ok(found)
}

/// The VAE of a file that has nothing else.
fn alone(path: &Path, all: &Shapes) -> Result<Slice, ConfigError> {
    let found = if all.contains_key("decoder.up_blocks.0.resnets.0.conv1.weight") {
        let (path, network, config) = (path.to_path_buf(), Network::Vae, Value::Null);
        with_config(Slice { path, prefix: "", names: None, network, config }, all)
    } else if all.contains_key("decoder.up.0.block.0.conv1.weight") {
        original(path, all, "")
    } else {
        let problem =
            "expected a VAE (AutoencoderKL) in diffusers' layout or the original one, found other tensors";
        return Err(ConfigError::file(path, problem));
    };
    check_known(path, all, [Some(&found)])?;
    Ok(found)
}

fn original(path: &Path, all: &Shapes, prefix: &'static str) -> Slice {
    let names = Some(Arc::new(Names::of_vae_shapes(&below(all, prefix))));
    let slice = Slice { path: path.to_path_buf(), prefix, names, network: Network::Vae, config: Value::Null };
    with_config(slice, all)
}

fn with_config(slice: Slice, all: &Shapes) -> Slice {
    Slice { config: derive::vae(&slice.shapes(all)), ..slice }
}
