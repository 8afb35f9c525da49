//! What becomes of a block's activations between the forward and the backward pass.

/// What becomes of the activations inside of a network's blocks until their gradients are computed. The results are the same bytes.
/// Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// They stay in memory.
    #[default]
    Keep,
    /// They are dropped, and computed again from the block's input: less memory, more time.
    Recompute,
}
