//! Multi-head attention.

use crate::Tensor;

/// What is added to attention's scores.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// −∞ above the diagonal.
    Causal,
    /// An f32 (T, S) tensor.
    Bias(&'a Tensor),
}

/// softmax(q kᵀ / √d + mask) v, for each of `heads` heads.
/// q (B, T, heads · d), k and v (B, S, heads · d) → (B, T, heads · d). d is a multiple of 8.
pub fn attention(_q: &Tensor, _k: &Tensor, _v: &Tensor, _heads: usize, _mask: Mask) -> Tensor {
    panic!("not yet")
}
