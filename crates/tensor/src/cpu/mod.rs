//! CPU kernels: what the ops call. All of the crate's `unsafe` lives here.

mod buffer;
pub(crate) mod elementwise;
mod isa;
pub(crate) mod math;

pub use buffer::{Buffer, trim_pool};
pub use isa::{Isa, isa};
