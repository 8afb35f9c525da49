//! The fused ops of SDXL: one file an op, with its forward, its backward and their test.

mod activation;
mod arithmetic;
mod attention;
mod conv2d;
mod linear;
mod reduce;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use arithmetic::{add, lincomb, mul, scale};
pub use attention::{Mask, attention};
pub use conv2d::{Conv, Padding, conv2d};
pub use linear::{Activation, linear};
pub(crate) use reduce::{sum_images, sum_rows};
