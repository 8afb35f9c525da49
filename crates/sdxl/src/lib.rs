//! SDXL: networks, samplers, pipeline. No HTTP, no async.

pub mod config;
pub mod error;
pub mod tokenizer;
pub mod weights;

pub use error::Error;
