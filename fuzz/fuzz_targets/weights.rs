//! Trained weights in one file (a tar, a safetensors file of any program), or PEFT's `adapter_config.json`, which is an
//! object of JSON.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use calotype_fuzz::{check_error, golden, new_folder};
use calotype_models::{ModelConfigs, ModelFolder};
use calotype_sdxl::Error;
use calotype_sdxl::adapters::{Adapters, Modules, TrainedWeights};
use calotype_sdxl::prompt::PromptEncoder;
use calotype_tensor::DType;
use libfuzzer_sys::fuzz_target;

/// The model that the weights are for.
struct Model {
    folder: ModelFolder,
    configs: ModelConfigs,
    modules: Modules,
    encoder: PromptEncoder,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let folder = ModelFolder::open(&golden("pipeline")).unwrap();
    let configs = folder.configs().unwrap();
    let modules = Modules::of(&folder, &configs).unwrap();
    let encoder = PromptEncoder::open(&folder, &configs, DType::F32).unwrap();
    Model { folder, configs, modules, encoder }
});

/// A file, and a folder with PEFT's files.
static PATHS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let folder = new_folder("weights");
    let peft = new_folder("peft");
    fs::copy(golden("adapters/diffusers.safetensors"), peft.join("adapter_model.safetensors")).unwrap();
    [folder.join("file"), peft]
});

fuzz_target!(|input: &[u8]| {
    let [file, peft] = &*PATHS;
    let path = if input.starts_with(b"{") {
        fs::write(peft.join("adapter_config.json"), input).unwrap();
        peft
    } else {
        fs::write(file, input).unwrap();
        file
    };
    for result in [export(path), apply(path)] {
        result.unwrap_or_else(check_error);
    }
});

/// Reads the weights without a model, and writes them in each layout that has room for them.
fn export(path: &PathBuf) -> Result<(), Error> {
    let found = TrainedWeights::read(path, None)?;
    match found.to_tar() {
        Ok(tar) => tar.write(&mut std::io::sink()).unwrap(),
        Err(error) => check_error(error),
    }
    for file in [found.to_kohya(), found.to_diffusers()] {
        match file {
            Ok(file) => file.write(&mut std::io::sink()).unwrap(),
            Err(error) => check_error(error),
        }
    }
    Ok(())
}

/// Gives the weights to a model, twice, with a prompt that has the word of the golden files.
fn apply(path: &PathBuf) -> Result<(), Error> {
    let Model { folder, configs, modules, encoder } = &*MODEL;
    let paths = [path.clone(), path.clone()];
    let adapters = Adapters::load(&paths[..1], &[0.6], modules, configs)?;
    encoder.encode(
        folder,
        &adapters,
        &["a photo of TOK, <lora:file:0.5> embedding:TOK"],
        Default::default(),
    )?;
    Adapters::load(&paths, &[1.0, 0.5], modules, configs)?;
    Ok(())
}
