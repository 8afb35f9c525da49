//! Model folders: what is read in them, and what is refused.

mod refused;
#[path = "../temp/mod.rs"]
mod temp;
mod understood;

use std::path::Path;

use calotype_models::config::{HiddenAct, UNetBlock, UNetMidBlock};
use calotype_models::{Component, ModelFolder};
use calotype_sdxl::error::Error;
use calotype_sdxl::samplers::SchedulerConfig;
use serde_json::{Value, json};
use temp::{Temp, copy, golden};

fn tiny() -> Temp {
    copy(&golden().join("pipeline"))
}

/// Changes a JSON file of a folder.
fn edit(dir: &Temp, file: &str, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
    let mut value = serde_json::from_str(&text).unwrap();
    change(&mut value);
    dir.write(file, value.to_string());
}

/// Everything of a folder that is read before a network is built.
fn open(dir: &Path) -> Result<(), Error> {
    let folder = ModelFolder::open(dir)?;
    let configs = folder.configs()?;
    for component in [Component::TextEncoder, Component::TextEncoder2, Component::UNet, Component::Vae] {
        if component != Component::TextEncoder || folder.has_text_encoder {
            folder.weights(component, None, None)?;
        }
    }
    if let Some(config) = &configs.text_encoder {
        folder.tokenizer(Component::TextEncoder, config)?.encode("a")?;
    }
    folder.tokenizer(Component::TextEncoder2, &configs.text_encoder_2)?.encode("a")?;
    Ok(())
}

/// The error of a folder: one line, for exit code 2.
fn error(dir: &Temp) -> String {
    let error = open(dir.path()).expect_err("an error");
    assert!(!matches!(error, Error::NotFinite | Error::Interrupted), "the caller's to mend");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 1000, "one short line: {text}");
    text
}

#[test]
fn the_tiny_folder_opens() {
    open(tiny().path()).unwrap();
}
