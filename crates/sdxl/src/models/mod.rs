//! SDXL's networks. Each reads like its diagram; a field has the name of its checkpoint key.

pub mod clip_text;
pub mod unet;
pub mod vae;
pub mod vae_tiling;

pub use clip_text::{ClipTextModel, ClipTextOutput};
pub use unet::{Context, UNet};
pub use vae::{Moments, Vae};
