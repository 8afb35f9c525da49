//! Predicts the memory and time that a training takes.
//!
//! `stages.rs` lists the parts of a UNet, `work.rs` counts the work.

pub mod memory;
mod stages;
pub mod time;
mod work;
