//! Multi-head attention.

use super::check;
use crate::backend::{AttentionSaved, HeadShape, Mask};
use crate::dtype::DType;
use crate::tape::record;
use crate::tensor::Tensor;

/// softmax(q kᵀ / √d + mask) v, for each of `heads` heads. No gradient flows to a mask.
/// q (B, T, heads · d), k and v (B, S, heads · d) → (B, T, heads · d), all of one dtype. d is a multiple of 8.
///
/// A query that sees no key, since there are none or a bias hides them all, gets zeros, and no gradient flows through it. With a
/// bias of −∞, or no keys, PyTorch 2.15's `scaled_dot_product_attention` does so too; where the bias of all keys is a large
/// finite number, PyTorch gives the mean of all values instead.
///
/// # Panics
/// If a shape or dtype is another, or `heads` is 0.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Tensor {
    let shape = checked_shape(q, k, v, heads, mask);
    let nodes = [q.node(), k.node(), v.node()];
    if q.numel() == 0 || k.numel() == 0 {
        let inputs = [q, k, v].map(|x| (x.shape().to_vec(), x.dtype()));
        let y = q.kernels().full(q.shape(), 0.0, q.dtype());
        return record(y, &nodes, move |dy| {
            inputs.iter().map(|(shape, dtype)| Some(dy.kernels().full(shape, 0.0, *dtype))).collect()
        });
    }
    let (y, lse) = q.kernels().attention(shape, [q, k, v], mask);
    if nodes.iter().all(Option::is_none) {
        return y;
    }
    let saved = AttentionSaved {
        shape,
        qkv: [q, k, v].map(Tensor::detach),
        y: y.clone(),
        lse,
        causal: matches!(mask, Mask::Causal),
        bias: if let Mask::Bias(bias) = mask { Some(bias.detach()) } else { None },
    };
    record(y, &nodes, move |dy| dy.kernels().attention_grad(&saved, dy).map(Some).into())
}

/// The sizes, where all inputs fit.
fn checked_shape(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> HeadShape {
    let (&[batch, queries, width], &[_, keys, _]) = (q.shape(), k.shape()) else {
        let (q, k) = (q.shape(), k.shape());
        panic!(
            "attention: shapes of q and k: expected (B, T, heads · d) and (B, S, heads · d), found {q:?} and {k:?}"
        )
    };
    check::shape("attention", "k", k, &[batch, keys, width]);
    check::dtype("attention", "k", k, q.dtype());
    check::alike("attention", "v", v, k);
    let fits = heads > 0 && width.is_multiple_of(8 * heads);
    assert!(fits, "attention: width of q: expected a multiple of 8 for each of {heads} heads, found {width}");
    if let Mask::Bias(bias) = mask {
        check::shape("attention", "bias", bias, &[queries, keys]);
        check::dtype("attention", "bias", bias, DType::F32);
    }
    HeadShape { batch, heads, queries, keys, d: width / heads }
}
