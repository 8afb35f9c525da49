//! Tensors, autograd and fused kernels. Knows nothing about diffusion.
//!
//! Tensors are contiguous, images are NHWC, activations are f32 or bf16. An op
//! in [`ops`] computes its result at once through the kernels of [`cpu`] and,
//! where an input requires a gradient, records on the [`tape`] how to go back.

pub mod cpu;
mod dtype;
pub mod ops;
pub mod rng;
pub mod tape;
mod tensor;
mod weight;

pub use dtype::DType;
pub use tape::{Gradients, checkpoint};
pub use tensor::Tensor;
pub use weight::{Weight, WeightBytes};
