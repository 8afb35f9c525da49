//! SDXL: networks, samplers, pipeline. No HTTP, no async.

pub mod request;
pub mod samplers;
