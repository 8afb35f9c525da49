//! How a block's activations are kept between the forward and the backward pass.

/// How the activations inside of a network's blocks are kept until their gradients are computed. Both ways give the same bytes.
/// Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// The activations stay in memory.
    #[default]
    Keep,
    /// The activations are dropped and recomputed from the block's input. This takes less memory and more time.
    Recompute,
}
