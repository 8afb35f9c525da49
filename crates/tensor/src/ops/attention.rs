//! Multi-head attention.

use std::borrow::Cow;

use super::check;
use crate::cpu::attention::{self, Shape};
use crate::cpu::attention_backward::{Saved, backward};
use crate::cpu::layout::clear_rows;
use crate::tape::record;
use crate::{DType, Tensor};

/// A bias of this or less hides a key: masks have −∞ there, or the least number of some dtype.
const HIDDEN: f32 = -1e30;

/// What is added to attention's scores.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// −∞ above the diagonal.
    Causal,
    /// An f32 (T, S) tensor. Numbers of −1e30 and less, −∞ among them, hide a key from a query.
    Bias(&'a Tensor),
}

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
    if q.numel() == 0 || k.numel() == 0 {
        let inputs = [q, k, v].map(|x| (x.shape().to_vec(), x.dtype()));
        let y = Tensor::zeros(q.shape(), q.dtype());
        let zeros =
            move |_: &Tensor| inputs.iter().map(|(s, dtype)| Some(Tensor::zeros(s, *dtype))).collect();
        return record(y, &[Some(q), Some(k), Some(v)], zeros);
    }
    let (bias, blind) = match mask {
        Mask::Bias(bias) => {
            let (bias, blind) = without_blind(bias);
            (Some(bias), blind)
        }
        Mask::None | Mask::Causal => (None, Vec::new()),
    };
    let mask = bias.as_deref().map_or(mask, Mask::Bias);
    let (y, lse) = attention::forward(shape, q, k, v, mask);
    let y = cleared(&Tensor::new(y, q.shape(), q.dtype()), &blind);
    if !(q.requires_grad() || k.requires_grad() || v.requires_grad()) {
        return y;
    }
    let saved = Saved {
        shape,
        q: q.detach(),
        k: k.detach(),
        v: v.detach(),
        y: y.clone(),
        lse: Tensor::new(lse, &[shape.batch * heads, shape.queries], DType::F32),
        causal: matches!(mask, Mask::Causal),
        bias: bias.as_deref().map(Tensor::detach),
    };
    record(y, &[Some(q), Some(k), Some(v)], move |dy| {
        let [dq, dk, dv] = backward(&saved, &cleared(dy, &blind));
        vec![Some(dq), Some(dk), Some(dv)]
    })
}

/// The sizes, where all inputs fit.
fn checked_shape(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Shape {
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
    Shape { batch, heads, queries, keys, d: width / heads }
}

/// The bias (T, S) with zeros for each query from which it hides every key, and those queries: what they give is not used, but
/// is to be a number.
fn without_blind(bias: &Tensor) -> (Cow<'_, Tensor>, Vec<usize>) {
    let rows = bias.f32s().chunks_exact(bias.last_dim()).enumerate();
    let blind: Vec<usize> =
        rows.filter(|(_, row)| row.iter().all(|bias| *bias <= HIDDEN)).map(|(query, _)| query).collect();
    if blind.is_empty() {
        return (Cow::Borrowed(bias), blind);
    }
    let matrix = bias.reshape(&[1, bias.dim(0), bias.dim(1)]);
    (Cow::Owned(clear_rows(&matrix, &blind).reshape(bias.shape())), blind)
}

/// x (B, T, C) with zeros for some queries.
fn cleared(x: &Tensor, queries: &[usize]) -> Tensor {
    if queries.is_empty() { x.clone() } else { clear_rows(x, queries) }
}
