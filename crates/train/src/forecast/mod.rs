//! Predicts the memory and time that a training takes.
//!
//! `count.rs` runs the real networks on the meta device, which counts their work and memory; the rest is constants.

mod count;
pub mod memory;
pub mod time;
