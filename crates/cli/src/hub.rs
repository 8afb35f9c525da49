//! Models from a hub by name, through its cache: `stabilityai/stable-diffusion-xl-base-1.0`.
//!
//! A model that is there already is used without asking the network. Else the hub lists its files, those that an SDXL
//! folder needs are fetched (a file that was cut off goes on), and the cache is the one that other programs use too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use calotype_sdxl::config::{Component, ModelFolder};
use hf_hub::Cache;
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};

use crate::failure::Failure;
use crate::output;

/// How long the hub may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a file that was cut off is gone on with.
const RETRIES: usize = 3;

/// Whether this can be a name on a hub: `owner/name`.
pub fn is_name(text: &str) -> bool {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

/// The folder of a model, fetched if it is not in the cache, with a bar on a terminal unless it is to be quiet.
///
/// # Errors
/// There is no such model, it is none of SDXL, or the hub cannot be reached.
pub fn folder(name: &str, quiet: bool) -> Result<PathBuf, Failure> {
    let cached = Cache::from_env().model(name.into()).get("model_index.json");
    if let Some(folder) = cached.as_deref().and_then(Path::parent).filter(|folder| is_complete(folder)) {
        return Ok(folder.to_path_buf());
    }
    let api = ApiBuilder::from_env().with_retries(RETRIES).with_progress(!quiet);
    // Without the variable, the token that the hub's own tools have saved.
    let api = match std::env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => api.with_token(Some(token)),
        _ => api,
    };
    let api = api.build().map_err(|e| unreachable(name, &e))?;
    let repo = api.model(name.into());
    let files = wanted(&list(name, &repo)?);
    if !files.iter().any(|file| file == "model_index.json") {
        let problem = "expected an SDXL model in diffusers' layout, found no model_index.json";
        return Err(Failure::BadInput(format!("--model {name}: {problem}")));
    }
    if !quiet {
        output::note(&format!("{name}: fetching {} files, once", files.len()));
    }
    let mut folder = PathBuf::new();
    for file in &files {
        let path = repo.get(file).map_err(|e| unreachable(name, &e))?;
        if file == "model_index.json" {
            folder = path.parent().unwrap_or(&path).to_path_buf();
        }
    }
    Ok(folder)
}

/// Whether everything that a prediction reads is there.
fn is_complete(folder: &Path) -> bool {
    let components = [Component::TextEncoder, Component::TextEncoder2, Component::UNet, Component::Vae];
    ModelFolder::open(folder).and_then(|model| model.configs()).is_ok_and(|configs| {
        let there = |c: &Component| *c != Component::TextEncoder || configs.text_encoder.is_some();
        components
            .iter()
            .filter(|c| there(c))
            .all(|c| ModelFolder::open(folder).is_ok_and(|model| model.weights(*c, None, None).is_ok()))
    })
}

/// The names of a model's files.
fn list(name: &str, repo: &ApiRepo) -> Result<Vec<String>, Failure> {
    let request = repo.info_request().config().timeout_global(Some(PATIENCE)).build();
    let read = || -> Result<RepoInfo, ureq::Error> { request.call()?.body_mut().read_json() };
    match read() {
        Ok(info) => Ok(info.siblings.into_iter().map(|file| file.rfilename).collect()),
        Err(ureq::Error::StatusCode(401 | 403 | 404)) => {
            let problem = "expected a folder or a model on the hub that may be read, found neither";
            Err(Failure::BadInput(format!("--model {name}: {problem}")))
        }
        Err(e) => Err(unreachable(name, &e)),
    }
}

fn unreachable(name: &str, e: &dyn std::fmt::Display) -> Failure {
    let advice = "connect to the network once, or give --model a folder that has the model";
    Failure::Failed(format!(
        "--model {name}: no such folder, not in the cache, and not to be fetched ({e}): {advice}"
    ))
}

/// The files of an SDXL folder: of each component's weights the fp16 variant, which is half as large, where there is one.
fn wanted(files: &[String]) -> Vec<String> {
    let components = ["text_encoder", "text_encoder_2", "unet", "vae"];
    let weights = |file: &str, folder: &str, stem: &str| -> bool {
        let name = file.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        let variant = name.contains(".fp16.");
        let known = name.starts_with(stem) && (name.ends_with(".safetensors") || name.ends_with(".json"));
        let has_variant = files.iter().any(|f| {
            f.starts_with(&format!("{folder}/{stem}")) && f.contains(".fp16.") && f.ends_with(".safetensors")
        });
        known && variant == has_variant && !name.contains("non_ema")
    };
    let small = |file: &str| {
        let (folder, name) = file.split_once('/').unwrap_or(("", file));
        match folder {
            "" => name == "model_index.json",
            "scheduler" | "tokenizer" | "tokenizer_2" => name.ends_with(".json") || name.ends_with(".txt"),
            _ => components.contains(&folder) && name == "config.json",
        }
    };
    let takes = |file: &&String| {
        small(file)
            || components[..2].iter().any(|folder| weights(file, folder, "model"))
            || components[2..].iter().any(|folder| weights(file, folder, "diffusion_pytorch_model"))
    };
    files.iter().filter(takes).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what is a path is not asked of a hub.
    #[test]
    fn names() {
        for (text, is) in [
            ("stabilityai/stable-diffusion-xl-base-1.0", true),
            ("models/sdxl", true),
            ("./models", false),
            ("/models/sdxl", false),
            ("../sdxl", false),
            ("models", false),
            ("a/b/c", false),
            ("a/", false),
            ("a/b c", false),
        ] {
            assert_eq!(is_name(text), is, "{text}");
        }
    }

    /// Protects: of the published model's files (its names), those that are read, and no other weights.
    #[test]
    fn files_of_the_published_model() {
        let all = "model_index.json README.md sd_xl_base_1.0.safetensors scheduler/scheduler_config.json \
            text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors \
            text_encoder/flax_model.msgpack text_encoder/openvino_model.bin text_encoder_2/config.json \
            text_encoder_2/model.safetensors tokenizer/merges.txt tokenizer/vocab.json unet/config.json \
            unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors \
            unet/diffusion_pytorch_model.non_ema.safetensors vae/config.json \
            vae/diffusion_pytorch_model-00001-of-00002.safetensors vae/diffusion_pytorch_model-00002-of-00002.safetensors \
            vae/diffusion_pytorch_model.safetensors.index.json vae_1_0/diffusion_pytorch_model.safetensors";
        let all: Vec<String> = all.split_whitespace().map(String::from).collect();
        let expected = "model_index.json scheduler/scheduler_config.json text_encoder/config.json \
            text_encoder/model.fp16.safetensors text_encoder_2/config.json text_encoder_2/model.safetensors \
            tokenizer/merges.txt tokenizer/vocab.json unet/config.json unet/diffusion_pytorch_model.fp16.safetensors \
            vae/config.json vae/diffusion_pytorch_model-00001-of-00002.safetensors \
            vae/diffusion_pytorch_model-00002-of-00002.safetensors vae/diffusion_pytorch_model.safetensors.index.json";
        assert_eq!(wanted(&all), expected.split_whitespace().collect::<Vec<_>>());
    }
}
