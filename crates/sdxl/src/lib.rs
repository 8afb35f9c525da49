//! SDXL: networks, samplers, pipeline. No HTTP, no async.

pub mod adapters;
pub mod config;
pub mod dataset;
pub mod error;
mod layout;
pub mod lr_schedule;
pub mod models;
pub mod nn;
pub mod optim;
pub mod page;
pub mod pipeline;
pub mod prompt;
pub mod request;
pub mod samplers;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use error::Error;
