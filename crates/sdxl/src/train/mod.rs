//! Training.
//!
//! ```text
//! stream.rs    the random numbers of a run, and which examples a micro-step takes
//! noise.rs     noisy latents and what the network should make of them
//! ```
//!
//! What is computed is defined by `tools/reference/trainer.py`, and proven against its runs.

pub mod noise;
pub mod stream;
