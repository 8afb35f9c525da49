//! CPU kernels: what the ops call. All of the crate's `unsafe` lives here.

pub(crate) mod attention;
pub(crate) mod attention_backward;
mod buffer;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod group_norm;
mod isa;
pub(crate) mod layer_norm;
pub(crate) mod layout;
pub(crate) mod math;
mod micro;
mod mmap;
pub(crate) mod operand;
pub(crate) mod pack;
pub(crate) mod panels;
pub(crate) mod reduce;
pub(crate) mod rows;
mod transpose;
pub(crate) mod winograd;

pub use buffer::{Buffer, trim_pool};
pub use isa::{Isa, UnknownIsa, isa, try_isa};
pub use mmap::{Mmap, open_weights};
pub use winograd::uses_winograd;
