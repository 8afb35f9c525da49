//! SDXL's networks as their papers draw them, and the files that they are loaded from: configs, weights, tokenizers.
//!
//! Each network reads like its diagram. Fields are named by checkpoint key.
//!
//! ```
//! # fn main() -> Result<(), calotype_models::Error> {
//! use std::path::Path;
//!
//! use calotype_models::{Component, ModelFolder, Vae};
//! use calotype_tensor::{DType, Tensor};
//!
//! // A model's folder in diffusers' layout.
//! let folder = ModelFolder::open(Path::new("../../models/pocket"))?;
//! let configs = folder.configs()?;
//! let vae = Vae::load(&folder.weights(Component::Vae, None, None)?, &configs.vae)?;
//! let latents = Tensor::zeros(&[1, 2, 2, configs.vae.latent_channels], DType::F32);
//! assert_eq!(vae.decode(&latents).shape(), [1, 16, 16, 3]);
//! # Ok(())
//! # }
//! ```

pub mod blip;
pub mod clip_text;
pub mod clip_vision;
pub mod clipseg;
pub mod config;
pub mod decoder_tiny;
mod error;
pub mod faces;
mod file_kind;
mod folder;
mod json;
mod message;
pub mod nn;
mod parameter;
pub mod safety_checker;
pub mod single;
pub mod swin2sr;
pub mod swinir;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod vae_rows;
pub mod vae_tiling;
pub mod weights;

pub use blip::{Blip, PictureKeys, TextCache};
pub use clip_text::{ClipTextModel, ClipTextOutput};
pub use clip_vision::{ClipVisionModel, ClipVisionOutput};
pub use clipseg::{ClipSeg, SeenPicture};
pub use decoder_tiny::DecoderTiny;
pub use error::Error;
pub use file_kind::wrong_kind;
pub use folder::{Component, ModelConfigs, ModelFolder, ModelPaths};
pub use json::{ConfigError, read_text};
pub use message::shorten;
pub use safety_checker::{SafetyChecker, SafetyScores};
pub use swin2sr::Swin2Sr;
pub use swinir::SwinIr;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use unet::{Context, UNet};
pub use vae::{Moments, Vae};
pub use weights::{Weights, WeightsError};
