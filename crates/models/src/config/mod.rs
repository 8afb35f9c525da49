//! Each network's `config.json`. The values are checked, so that the networks can rely on them.

mod clip_text;
mod unet;
mod vae;

pub use clip_text::{ClipTextConfig, HiddenAct};
pub use unet::{UNetBlock, UNetConfig, UNetMidBlock};
pub use vae::VaeConfig;
