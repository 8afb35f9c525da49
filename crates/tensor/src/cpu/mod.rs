//! The CPU as a device: its kernels, instruction sets and threads.

pub(crate) mod attention;
pub(crate) mod attention_backward;
mod backend;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod group_norm;
mod isa;
pub(crate) mod layer_norm;
pub(crate) mod layout;
pub(crate) mod math;
mod micro;
pub(crate) mod operand;
mod optim;
pub(crate) mod pack;
pub(crate) mod panels;
mod products;
pub(crate) mod reduce;
pub(crate) mod rows;
mod transforms;
mod transpose;
mod window_attention;
pub(crate) mod winograd;
mod workers;

pub(crate) use backend::Cpu;
pub use isa::{Isa, UnknownIsa, isa, try_isa};
pub use workers::Workers;

use crate::memory::Buffer;
pub use crate::memory::{keep_heap_small, trim_pool};
