//! Attention, one query after the other.

use super::{like, tensor, values};
use crate::backend::{AttentionSaved, HIDDEN, HeadShape, Mask};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// The weights of one query of one head of one image, and the logarithm of their sum; all zeros where no key is seen.
fn weights(
    s: HeadShape,
    q: &[f64],
    k: &[f64],
    bias: Option<&[f64]>,
    mask: Mask,
    at: [usize; 3],
) -> (Vec<f64>, f64) {
    let [image, head, query] = at;
    let q = &q[s.at(image * s.queries + query, head)..][..s.d];
    let score = |key: usize| {
        let k = &k[s.at(image * s.keys + key, head)..][..s.d];
        let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
        let hidden = matches!(mask, Mask::Causal) && key > query;
        let bias = bias.map_or(0.0, |bias| bias[query * s.keys + key]);
        if hidden { f64::NEG_INFINITY } else { product / (s.d as f64).sqrt() + bias }
    };
    if bias.is_some_and(|bias| bias[query * s.keys..][..s.keys].iter().all(|bias| *bias <= f64::from(HIDDEN)))
    {
        return (vec![0.0; s.keys], 0.0);
    }
    let scores: Vec<f64> = (0..s.keys).map(score).collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |max, x| max.max(*x));
    let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
    (scores.iter().map(|x| (x - max).exp() / sum).collect(), max + sum.ln())
}

/// Each head of each image, and each of its queries.
fn queries(s: HeadShape) -> impl Iterator<Item = [usize; 3]> {
    let of_head = move |i: usize| (0..s.queries).map(move |query| [i / s.heads, i % s.heads, query]);
    (0..s.batch * s.heads).flat_map(of_head)
}

pub(super) fn forward(s: HeadShape, [q, k, v]: [&Tensor; 3], mask: Mask) -> (Tensor, Tensor) {
    let bias = if let Mask::Bias(bias) = mask { Some(values(bias)) } else { None };
    let (q_values, k, v) = (values(q), values(k), values(v));
    let (mut y, mut lse) = (vec![0.0; q.numel()], Vec::new());
    for at @ [image, head, query] in queries(s) {
        let (weights, log_sum) = weights(s, &q_values, &k, bias.as_deref(), mask, at);
        lse.push(log_sum);
        for (key, c) in (0..s.keys).flat_map(|key| (0..s.d).map(move |c| (key, c))) {
            y[s.at(image * s.queries + query, head) + c] +=
                weights[key] * v[s.at(image * s.keys + key, head) + c];
        }
    }
    (like(q, y), tensor(lse, &[s.batch * s.heads, s.queries], DType::F32))
}

pub(super) fn backward(saved: &AttentionSaved, dy: &Tensor) -> [Tensor; 3] {
    let s = saved.shape;
    let bias = saved.bias.as_ref().map(values);
    let [q, k, v] = saved.qkv.each_ref().map(values);
    let dy = values(dy);
    let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![0.0; x.len()]);
    for at @ [image, head, query] in queries(s) {
        let (weights, _) = weights(s, &q, &k, bias.as_deref(), saved.mask(), at);
        let of_query = s.at(image * s.queries + query, head);
        let of_key = |key: usize| s.at(image * s.keys + key, head);
        let dweight = |key: usize| -> f64 { (0..s.d).map(|c| dy[of_query + c] * v[of_key(key) + c]).sum() };
        let sum: f64 = (0..s.keys).map(|key| weights[key] * dweight(key)).sum();
        for key in 0..s.keys {
            let dscore = weights[key] * (dweight(key) - sum) / (s.d as f64).sqrt();
            for c in 0..s.d {
                dv[of_key(key) + c] += weights[key] * dy[of_query + c];
                dq[of_query + c] += dscore * k[of_key(key) + c];
                dk[of_key(key) + c] += dscore * q[of_query + c];
            }
        }
    }
    let [q, k, v] = &saved.qkv;
    [like(q, dq), like(k, dk), like(v, dv)]
}
