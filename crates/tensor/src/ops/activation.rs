//! Activations.

use crate::Tensor;

/// x · sigmoid(x).
pub fn silu(_x: &Tensor) -> Tensor {
    panic!("not yet")
}
/// x Φ(x).
pub fn gelu(_x: &Tensor) -> Tensor {
    panic!("not yet")
}
/// x · sigmoid(1.702 x).
pub fn quick_gelu(_x: &Tensor) -> Tensor {
    panic!("not yet")
}
/// First half · gelu(second half).
pub fn geglu(_x: &Tensor) -> Tensor {
    panic!("not yet")
}
