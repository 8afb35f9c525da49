//! The model in the binary, for users without another: a small SDXL, trained by `tools/pocket`.
//!
//! The files are unpacked into the user's cache once, because networks read their weights from files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::output;

/// The model's name in `--model`.
pub const NAME: &str = "pocket";
/// The side of its pictures, in pixels.
pub const SIDE: usize = 128;
/// The notice for a user who gave no model.
pub const NOTICE: &str = "model: pocket, a toy of 128 × 128 pixels that comes with calotype \
     (real SDXL: --model stabilityai/stable-diffusion-xl-base-1.0)";
/// A checksum of the model's files (as the test computes it). Another model has another folder.
const REVISION: &str = "78654cfd";

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pocket/", $name)))),*]
    };
}

/// Path and content of each file in the model's folder. The captioner, the segmenter and the upscaler are for preprocessing; they
/// are no parts of `model_index.json`.
const FILES: &[(&str, &[u8])] = files! {
    "captioner/config.json"
    "captioner/model.safetensors"
    "captioner/preprocessor_config.json"
    "captioner/special_tokens_map.json"
    "captioner/tokenizer_config.json"
    "captioner/vocab.txt"
    "model_index.json"
    "scheduler/scheduler_config.json"
    "segmenter/config.json"
    "segmenter/merges.txt"
    "segmenter/model.safetensors"
    "segmenter/preprocessor_config.json"
    "segmenter/special_tokens_map.json"
    "segmenter/tokenizer_config.json"
    "segmenter/vocab.json"
    "text_encoder/config.json"
    "text_encoder/model.safetensors"
    "text_encoder_2/config.json"
    "text_encoder_2/model.safetensors"
    "tokenizer/merges.txt"
    "tokenizer/special_tokens_map.json"
    "tokenizer/tokenizer_config.json"
    "tokenizer/vocab.json"
    "tokenizer_2/merges.txt"
    "tokenizer_2/special_tokens_map.json"
    "tokenizer_2/tokenizer_config.json"
    "tokenizer_2/vocab.json"
    "unet/config.json"
    "unet/diffusion_pytorch_model.safetensors"
    "upscaler/config.json"
    "upscaler/model.safetensors"
    "upscaler/preprocessor_config.json"
    "vae/config.json"
    "vae/diffusion_pytorch_model.safetensors"
};

/// The path of the folder in a cache.
fn place() -> PathBuf {
    ["calotype", REVISION, NAME].iter().collect()
}

/// Whether a folder has this model's path in some user's cache.
pub fn is(folder: &Path) -> bool {
    folder.ends_with(place())
}

/// The model's folder, unpacked into the user's cache if necessary. A file that differs is replaced.
///
/// # Errors
/// A file cannot be written.
pub fn folder() -> Result<PathBuf, Failure> {
    let bad = |problem: &str| {
        Failure::Failed(format!(
            "model pocket: {problem}: set XDG_CACHE_HOME to a folder that can be written to"
        ))
    };
    let folder = dirs::cache_dir().ok_or_else(|| bad("no cache folder"))?.join(place());
    let unpacked = FILES.iter().try_for_each(|(name, contents)| unpack(&folder.join(name), contents));
    match unpacked {
        Ok(()) => Ok(folder),
        Err(Failure::Failed(problem)) => Err(bad(&problem)),
        Err(failure) => Err(failure),
    }
}

/// Makes sure that a file has this content. Other programs find a complete file at any time.
fn unpack(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|found| found == contents) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|e| Failure::io(folder, &e))?;
    output::write_bytes(path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the model in the binary: it has every file of the folder except the model card. Another model has another
    /// folder.
    #[test]
    fn the_whole_folder_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket");
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let inner: Vec<PathBuf> = match path.is_dir() {
                true => fs::read_dir(&path).expect("a folder").map(|e| e.expect("an entry").path()).collect(),
                false => vec![path],
            };
            found.extend(
                inner
                    .iter()
                    .map(|p| p.strip_prefix(&folder).expect("inside").to_string_lossy().replace('\\', "/")),
            );
        }
        found.retain(|name| name != "README.md");
        found.sort();
        assert_eq!(found, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let beside =
            |name: &str| ["captioner/", "segmenter/", "upscaler/"].iter().any(|part| name.starts_with(part));
        let sum_of = |wanted: bool| -> usize {
            FILES.iter().filter(|(name, _)| beside(name) == wanted).map(|(_, contents)| contents.len()).sum()
        };
        assert!(sum_of(false) <= 40_000_000, "the model: {} bytes", sum_of(false));
        assert!(sum_of(true) <= 16_000_000, "the networks for preprocessing: {} bytes", sum_of(true));
        let all = FILES.iter().flat_map(|(_, contents)| *contents).copied().collect::<Vec<u8>>();
        let mut sum = flate2::Crc::new();
        sum.update(&all);
        assert_eq!(REVISION, format!("{:08x}", sum.sum()), "the model is another: so is REVISION");
        let configs = ["unet", "vae"].map(|part| format!("{part}/config.json"));
        let [unet, vae] = configs.map(|path| {
            let (_, text) = FILES.iter().find(|(name, _)| *name == path).expect("a config");
            serde_json::from_slice::<serde_json::Value>(text).expect("JSON")
        });
        let scale = 1 << (vae["block_out_channels"].as_array().expect("channels").len() - 1);
        assert_eq!(unet["sample_size"].as_u64(), Some(SIDE as u64 / scale));
    }

    /// Protects the cache: a damaged file is repaired.
    #[test]
    fn a_file_that_differs_is_replaced() {
        let here = tempfile::tempdir().expect("a directory");
        let path = here.path().join("a/b.json");
        unpack(&path, b"{}").expect("written");
        fs::write(&path, "{").expect("damaged");
        unpack(&path, b"{}").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"{}");
    }
}
