//! How much memory and time a training takes, before it takes them.
//!
//! `stages.rs` is a UNet from front to back, `work.rs` what there is to compute.

pub mod memory;
mod stages;
pub mod time;
mod work;
