//! Each network's `config.json`. The values are checked, so that the networks can rely on them.

mod autoencoder_tiny;
mod blip;
mod clip_text;
mod clip_vision;
mod clipseg;
mod image_processor;
mod swin2sr;
mod swinir;
mod unet;
mod vae;

pub use autoencoder_tiny::AutoencoderTinyConfig;
pub use blip::{BlipConfig, BlipTextConfig, BlipVisionConfig};
pub use clip_text::{ClipTextConfig, HiddenAct};
pub use clip_vision::ClipVisionConfig;
pub use clipseg::ClipSegConfig;
pub use image_processor::{ImageProcessorConfig, Resample};
pub use swin2sr::Swin2SrConfig;
pub use swinir::SwinIrConfig;
pub use unet::{UNetBlock, UNetConfig, UNetMidBlock};
pub use vae::VaeConfig;
