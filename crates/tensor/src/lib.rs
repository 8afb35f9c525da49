//! Tensors, autograd and fused kernels. Knows nothing about diffusion.
//!
//! Tensors are contiguous, images are NHWC, activations are f32 or bf16. An op
//! in [`ops`] computes its result at once through the kernels of [`cpu`] and,
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

pub mod cpu;
mod dtype;
pub mod ops;
pub mod rng;
pub mod tape;
mod tensor;
mod weight;

pub use dtype::DType;
pub use tape::{Gradients, LeafId, checkpoint};
pub use tensor::Tensor;
pub use weight::{Weight, WeightBytes};
