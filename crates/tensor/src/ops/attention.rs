//! Multi-head attention.

use crate::cpu::attention::{self, Shape};
use crate::cpu::attention_backward::{Saved, backward};
use crate::tape::record;
use crate::{DType, Tensor};

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

/// softmax(q kᵀ / √d + mask) v, for each of `heads` heads. No gradient flows to a mask.
/// q (B, T, heads · d), k and v (B, S, heads · d) → (B, T, heads · d). d is a multiple of 8.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Tensor {
    let (&[batch, queries, width], &[_, keys, _]) = (q.shape(), k.shape()) else {
        panic!("attention takes (B, T, heads · d), not {:?} and {:?}", q.shape(), k.shape())
    };
    assert_eq!(k.shape(), [batch, keys, width]);
    assert_eq!(v.shape(), k.shape());
    assert!(width.is_multiple_of(8 * heads), "head size {width} / {heads} is a multiple of 8");
    if let Mask::Bias(bias) = mask {
        assert_eq!(bias.shape(), [queries, keys]);
    }
    let shape = Shape { batch, heads, queries, keys, d: width / heads };
    let (y, lse) = attention::forward(shape, q, k, v, mask);
    let y = Tensor::new(y, q.shape(), q.dtype());
    if !(q.requires_grad() || k.requires_grad() || v.requires_grad()) {
        return y;
    }
    let saved = Saved {
        shape,
        q: q.detach(),
        k: k.detach(),
        v: v.detach(),
        y: y.clone(),
        lse: Tensor::new(lse, &[batch * heads, queries], DType::F32),
        causal: matches!(mask, Mask::Causal),
        bias: if let Mask::Bias(bias) = mask { Some(bias.detach()) } else { None },
    };
    record(y, &[Some(q), Some(k), Some(v)], move |dy| {
        let [dq, dk, dv] = backward(&saved, dy);
        vec![Some(dq), Some(dk), Some(dv)]
    })
}
