//! Attention in windows, one query after the other: each pixel of the image is a key if it lies in the query's window.

use super::{like, softmax, values};
use crate::backend::WindowArgs;
use crate::tensor::Tensor;

/// Where a pixel lies in the rolled image, along one axis: its window, its place in the window, and whether it came in at the other
/// side.
fn along(at: usize, size: usize, args: &WindowArgs) -> (usize, usize, bool) {
    let rolled = (at + size - args.shift) % size;
    (rolled / args.window, rolled % args.window, at < args.shift)
}

/// The features of one head, divided by their length where the attention asks for that.
fn features(x: &[f64], args: &WindowArgs) -> Vec<f64> {
    let length = if args.cosine { x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12) } else { 1.0 };
    x.iter().map(|x| x / length).collect()
}

pub(super) fn forward(args: &WindowArgs, [q, k, v]: [&Tensor; 3]) -> Tensor {
    let [_, height, width, channels] = q.shape().try_into().expect("an image");
    let (pixels, d, area) = (height * width, channels / args.heads, args.window * args.window);
    let [q_values, k, v, scale, bias] = [q, k, v, args.scale, args.bias].map(values);
    let mut y = vec![0.0; q.numel()];
    let place = |pixel: usize| {
        let (row, i, below) = along(pixel / width, height, args);
        let (column, j, right) = along(pixel % width, width, args);
        ([row, column], i * args.window + j, [below, right])
    };
    for (at, y) in y.chunks_exact_mut(d).enumerate() {
        let (image, query, head) = (at / args.heads / pixels, at / args.heads % pixels, at % args.heads);
        let of = |pixel: usize| ((image * pixels + pixel) * args.heads + head) * d;
        let (window, row, side) = place(query);
        let keys: Vec<usize> = (0..pixels).filter(|key| place(*key).0 == window).collect();
        let q = features(&q_values[of(query)..][..d], args);
        let score = |key: &usize| {
            let (_, column, other) = place(*key);
            let k = features(&k[of(*key)..][..d], args);
            let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
            let apart = if side == other { 0.0 } else { f64::from(args.apart) };
            product * scale[head] + bias[(head * area + row) * area + column] + apart
        };
        let weights = softmax(&keys.iter().map(score).collect::<Vec<_>>());
        for (weight, key) in weights.iter().zip(keys) {
            y.iter_mut().zip(&v[of(key)..]).for_each(|(y, v)| *y += weight * v);
        }
    }
    like(q, y)
}
