//! Each network's `config.json`, checked, so that the networks can rely on it.

mod clip_text;
mod unet;
mod vae;

pub use clip_text::{ClipTextConfig, HiddenAct};
pub use unet::{UNetBlock, UNetConfig, UNetMidBlock};
pub use vae::VaeConfig;
