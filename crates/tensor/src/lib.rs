//! Tensors, autograd and fused kernels. Knows nothing about diffusion.
//!
//! Tensors are contiguous, images are NHWC, activations are f32 or bf16. An op
//! in [`ops`] computes its result at once through the kernels of the [`Device`] where its inputs lie and,
//! where an input requires a gradient, records on the [`tape`] how to go back.
//!
//! ```
//! use calotype_tensor::{Tensor, ops};
//!
//! // The slope of the mean of (x − y)² at x = (1, 2), y = (0, 0).
//! let x = Tensor::from_slice(&[1.0, 2.0], &[1, 1, 1, 2]).var();
//! let y = Tensor::from_slice(&[0.0, 0.0], &[1, 1, 1, 2]);
//! let loss = ops::mse(&x, &y, None);
//! let gradients = loss.backward();
//! assert_eq!(loss.to_vec(), [2.5]);
//! assert_eq!(gradients.get(&x).unwrap().to_vec(), [1.0, 2.0]);
//! ```

mod backend;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
pub mod cpu;
mod device;
mod dtype;
pub mod io;
mod memory;
pub mod meta;
mod node;
pub mod ops;
#[cfg(test)]
mod reference;
pub mod rng;
mod stored;
pub mod tape;
mod tensor;
mod weight;

// The tests that all devices share name the crate as other crates do.
#[cfg(test)]
extern crate self as calotype_tensor;

pub use dtype::DType;
pub use memory::Device;
pub use stored::WeightBytes;
pub use tape::{Gradients, LeafId, checkpoint};
pub use tensor::Tensor;
pub use weight::Weight;
