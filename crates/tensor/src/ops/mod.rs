//! The fused ops of SDXL: one file an op, with its forward and its backward.
//!
//! Every op checks the shapes and dtypes of its inputs, and panics where they do not fit: the message names the op and the
//! input, with expected and found. Dimensions of 0 are allowed, unless an op says otherwise: the result is empty, or a sum
//! over nothing, which is 0.

mod activation;
mod arithmetic;
mod attention;
mod cast;
mod check;
mod concat;
mod conv2d;
mod embedding;
mod group_norm;
mod layer_norm;
mod linear;
mod loss;
mod optim;
mod softmax;
mod timestep_embedding;
mod upsample;
mod window_attention;

pub use activation::{geglu, gelu, leaky_relu, quick_gelu, relu, silu};
pub use arithmetic::{add, lincomb, mul, scale};
pub use attention::attention;
pub use concat::{cat_batch, concat, slice_batch, slice_last};
pub use conv2d::{Conv, ConvArgs, Padding, conv2d};
pub use embedding::embedding;
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::{LinearArgs, linear};
pub use loss::{mean, mse, sum};
pub use optim::{adafactor, adamw, add_to, step, sum_squares};
pub use softmax::softmax;
pub use timestep_embedding::timestep_embedding;
pub use upsample::{crop, upsample_nearest2x};
pub use window_attention::window_attention;

pub use crate::backend::{
    Activation, AdafactorArgs, AdafactorAverages, AdamWArgs, GroupNormArgs, Mask, WindowArgs,
};
