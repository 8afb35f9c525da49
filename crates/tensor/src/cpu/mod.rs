//! CPU kernels: what the ops call. All of the crate's `unsafe` lives here.

mod buffer;
pub(crate) mod elementwise;
pub(crate) mod gemm;
mod isa;
pub(crate) mod math;
mod micro;
mod mmap;
pub(crate) mod operand;
pub(crate) mod pack;

pub use buffer::{Buffer, trim_pool};
pub use isa::{Isa, isa};
pub use mmap::Mmap;
