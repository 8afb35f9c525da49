//! Random numbers that equal PyTorch's, so that a seed means the same picture here and there.
//!
//! [`TorchCpu`] is `torch.Generator("cpu")` and [`TorchCuda`] is `torch.Generator("cuda")`. Both can be saved and
//! restored in the middle of a stream, and both are plain values: nothing is global.

mod mt19937;
mod philox;

pub use mt19937::TorchCpu;
pub use philox::TorchCuda;

/// The bytes given to `from_state` are not what `state` of the same generator wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadState {
    /// Which generator refused them.
    pub generator: &'static str,
    /// What a saved state looks like.
    pub expected: &'static str,
    /// What was given.
    pub found: String,
}

impl std::fmt::Display for BadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} state: expected {}, found {}", self.generator, self.expected, self.found)
    }
}

impl std::error::Error for BadState {}
