//! A model folder in which one file is the input: a config, a tokenizer's file, weights; or a prompt to its tokenizer; or a model in a
//! single file; or a file of a network that is no part of SDXL.
//!
//! The first byte of an input says which file it replaces, the rest is the file.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use calotype_fuzz::{check_error, copy, golden, new_folder};
use calotype_models::tokenizer::Tokenizer;
use calotype_models::weights::{Network, Weights};
use calotype_models::{Component, DecoderTiny, ModelFolder, ModelPaths};
use calotype_models::{clip_text::ClipTextModel, unet::UNet, vae::Vae};
use calotype_sdxl::Error;
use calotype_sdxl::safety::Safety;
use calotype_sdxl::samplers::{Sampler, Schedule, SchedulerConfig};
use calotype_tensor::DType;
use calotype_train::preprocess::{CaptionDecoding, Captioner, Segmenter, Upscaler};
use image::{Rgb, RgbImage};
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

/// What an input can replace. Those from `weights/` on are in folders of their own.
const FILES: [&str; 28] = [
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/tokenizer.json",
    "weights/model.safetensors",
    "shards/diffusion_pytorch_model.safetensors.index.json",
    "prompt",
    "single/model.safetensors",
    "single/vae.safetensors",
    "blip/config.json",
    "blip/preprocessor_config.json",
    "blip/vocab.txt",
    "blip_json/tokenizer.json",
    "clipseg/config.json",
    "clipseg/preprocessor_config.json",
    "clipseg/vocab.json",
    "clipseg/merges.txt",
    "swin2sr/config.json",
    "swinir/model.safetensors",
    "safety_checker/config.json",
    "autoencoder_tiny/config.json",
];

/// The golden pipeline, and beside it weights and shards alone, and the networks that are no part of SDXL.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let (pipeline, folder) = (golden("pipeline"), new_folder("model"));
    copy(&pipeline, &folder);
    for name in ["weights", "shards", "single", "swinir"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for name in ["blip", "clipseg", "safety_checker", "autoencoder_tiny"] {
        copy(&golden("models").join(name), &folder.join(name));
    }
    copy(&golden("../../../../models/pocket/upscaler"), &folder.join("swin2sr"));
    copy(&folder.join("blip"), &folder.join("blip_json"));
    fs::remove_file(folder.join("blip_json/vocab.txt")).unwrap(); // which would be read first
    fs::copy(pipeline.join("vae/diffusion_pytorch_model.safetensors"), folder.join("shards/a.safetensors"))
        .unwrap();
    folder
});

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else { return };
    let Some(&name) = FILES.get(which as usize) else { return };
    let path = FOLDER.join(name);
    let before = fs::read(&path).ok();
    fs::write(&path, bytes).unwrap();
    let result = match name.split('/').next() {
        Some("weights") => tensors(bytes),
        Some("shards") => {
            Weights::open(&FOLDER.join("shards"), Network::Vae, None, None).map(drop).map_err(Error::from)
        }
        Some("tokenizer" | "tokenizer_2") => tokenizers(),
        Some("prompt") => prompt(bytes),
        Some("single") => single(name),
        Some(captioner @ ("blip" | "blip_json")) => caption(&FOLDER.join(captioner)),
        Some("clipseg") => segment(&FOLDER.join("clipseg")),
        Some(upscaler @ ("swin2sr" | "swinir")) => upscale(&FOLDER.join(upscaler)),
        Some("safety_checker") => Safety::open(&FOLDER.join("safety_checker")).map(drop),
        Some("autoencoder_tiny") => {
            DecoderTiny::open(&FOLDER.join("autoencoder_tiny")).map(drop).map_err(Error::from)
        }
        _ => networks(&ModelPaths { model: FOLDER.clone(), ..ModelPaths::default() }),
    };
    match before {
        Some(before) => fs::write(&path, before).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    result.unwrap_or_else(check_error);
});

/// A model in a single file, with its own configs and with those of the folder, or another VAE for the folder.
fn single(name: &str) -> Result<(), Error> {
    let file = FOLDER.join(name);
    if name.ends_with("vae.safetensors") {
        return networks(&ModelPaths { model: FOLDER.clone(), vae: Some(file), config: None });
    }
    let paths = ModelPaths { model: file, ..ModelPaths::default() };
    if let Err(error) = networks(&paths) {
        check_error(error);
    }
    networks(&ModelPaths { config: Some(FOLDER.clone()), ..paths })
}

/// Every network and sampler, from the configs.
fn networks(paths: &ModelPaths) -> Result<(), Error> {
    let folder = ModelFolder::open_paths(paths)?;
    let scheduler = SchedulerConfig::open(&folder)?;
    for sampler in Sampler::ALL {
        if let Err(error) = Schedule::new(sampler, &scheduler, 3) {
            check_error(error);
        }
    }
    let configs = folder.configs()?;
    let weights = |component| folder.weights(component, None, None);
    if let Some(config) = &configs.text_encoder {
        ClipTextModel::load(&weights(Component::TextEncoder)?, config, false, DType::F32)?;
    }
    ClipTextModel::load(&weights(Component::TextEncoder2)?, &configs.text_encoder_2, true, DType::F32)?;
    UNet::load(&weights(Component::UNet)?, &configs.unet)?;
    Vae::load(&weights(Component::Vae)?, &configs.vae)?;
    Ok(())
}

/// Every tensor that the file says it has.
fn tensors(bytes: &[u8]) -> Result<(), Error> {
    let weights = Weights::open(&FOLDER.join("weights"), Network::ClipText, None, None)?;
    let Ok((_, header)) = SafeTensors::read_metadata(bytes) else {
        panic!("opened what is no safetensors file")
    };
    for (key, info) in header.tensors() {
        for key in [key.clone(), format!("text_model.{key}")] {
            if let Err(error) = weights.tensor(&key, &info.shape) {
                check_error(error);
            }
        }
    }
    Ok(weights.finish()?)
}

fn tokenizers() -> Result<(), Error> {
    for name in ["tokenizer", "tokenizer_2"] {
        let tokenizer = Tokenizer::load(&FOLDER.join(name))?.for_encoder(634, 77)?;
        for text in ["", "a photo of an astronaut, don't!", "é 日本 <|endoftext|>"] {
            let encoding = tokenizer.encode(text)?;
            assert_eq!(encoding.ids.len(), tokenizer.length());
        }
    }
    Ok(())
}

/// A picture for the networks that take one.
fn picture() -> RgbImage {
    RgbImage::from_fn(3, 2, |x, y| Rgb([90 * x as u8, 80 * y as u8, 70]))
}

fn caption(folder: &Path) -> Result<(), Error> {
    let captioner = Captioner::open(folder, DType::F32)?;
    drop(captioner.caption(&picture(), CaptionDecoding::Beam, 1)); // values may be no numbers
    Ok(())
}

fn segment(folder: &Path) -> Result<(), Error> {
    let segmenter = Segmenter::open(folder, DType::F32)?;
    if let Ok(found) = segmenter.segment(&picture(), &segmenter.prompt("a b")?, 1.0) {
        assert_eq!(found.mask.dimensions(), (3, 2));
    }
    Ok(())
}

fn upscale(folder: &Path) -> Result<(), Error> {
    let upscaler = Upscaler::open(folder, DType::F32)?;
    let factor = upscaler.factor();
    if let Ok(enlarged) = upscaler.upscale(&picture()) {
        assert_eq!(enlarged.dimensions(), (3 * factor, 2 * factor));
    }
    Ok(())
}

fn prompt(bytes: &[u8]) -> Result<(), Error> {
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::load(&FOLDER.join("tokenizer")).unwrap());
    let encoding = TOKENIZER.encode(&String::from_utf8_lossy(bytes))?;
    assert_eq!(encoding.ids.len(), 77);
    Ok(())
}
