//! CPU kernels: what the ops call. All of the crate's `unsafe` lives here.

pub(crate) mod attention;
pub(crate) mod attention_backward;
mod buffer;
pub(crate) mod elementwise;
pub(crate) mod gemm;
mod isa;
pub(crate) mod math;
mod micro;
pub(crate) mod operand;
pub(crate) mod pack;

pub use buffer::{Buffer, trim_pool};
pub use isa::{Isa, isa};
