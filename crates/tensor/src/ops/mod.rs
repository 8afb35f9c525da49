//! The fused ops of SDXL: one file an op, with its forward, its backward and their test.

mod arithmetic;
mod attention;
mod conv2d;
mod linear;

pub use arithmetic::{add, lincomb, mul, scale};
pub use attention::{Mask, attention};
pub use conv2d::{Conv, Padding, conv2d};
pub use linear::{Activation, linear};
