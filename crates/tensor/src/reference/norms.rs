//! Group norm, and layer norm as a group norm of one group.

use super::{derivative, like, tensor, unary, values};
use crate::backend::{GroupNormArgs, Unary};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// For each group of each image, the elements that it has in x (B, .., C).
fn groups(x: &Tensor, groups: usize) -> Vec<Vec<usize>> {
    let (images, channels) = (x.dim(0), x.last_dim());
    let image = x.numel() / images;
    let mut of = vec![Vec::new(); images * groups];
    for i in 0..x.numel() {
        of[i / image * groups + i % channels / (channels / groups)].push(i);
    }
    of
}

/// y, and mean and 1 / √(variance + eps) of each group.
pub(super) fn group_norm(norm: GroupNormArgs, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
    let (found, weight, bias) = (values(x), values(weight), values(bias));
    let (mut y, mut moments) = (vec![0.0; x.numel()], Vec::new());
    for group in groups(x, norm.groups) {
        let mean = group.iter().map(|i| found[*i]).sum::<f64>() / group.len() as f64;
        let variance = group.iter().map(|i| (found[*i] - mean).powi(2)).sum::<f64>() / group.len() as f64;
        let rstd = 1.0 / (variance + f64::from(norm.eps)).sqrt();
        moments.extend([mean, rstd]);
        for i in group {
            let z = (found[i] - mean) * rstd * weight[i % weight.len()] + bias[i % bias.len()];
            y[i] = if norm.silu { unary(Unary::Silu, z) } else { z };
        }
    }
    [like(x, y), tensor(moments, &[x.dim(0), norm.groups, 2], DType::F32)]
}

/// The gradients of x, weight and bias.
pub(super) fn group_norm_grad(
    norm: GroupNormArgs,
    [x, weight, bias, moments]: [&Tensor; 4],
    dy: &Tensor,
) -> [Tensor; 3] {
    let (found, weights, biases, dy) = (values(x), values(weight), values(bias), values(dy));
    let channels = x.last_dim();
    let (mut dx, mut dw, mut db) = (vec![0.0; x.numel()], vec![0.0; channels], vec![0.0; channels]);
    for (group, moments) in groups(x, norm.groups).iter().zip(values(moments).chunks_exact(2)) {
        let (mean, rstd) = (moments[0], moments[1]);
        let normal = |i: usize| (found[i] - mean) * rstd;
        let dz = |i: usize| {
            let z = normal(i) * weights[i % channels] + biases[i % channels];
            dy[i] * if norm.silu { derivative(Unary::Silu, z) } else { 1.0 }
        };
        let weighted = |i: usize| dz(i) * weights[i % channels];
        let count = group.len() as f64;
        let sum = group.iter().map(|i| weighted(*i)).sum::<f64>() / count;
        let product = group.iter().map(|i| weighted(*i) * normal(*i)).sum::<f64>() / count;
        for &i in group {
            dx[i] = rstd * (weighted(i) - sum - normal(i) * product);
            dw[i % channels] += dz(i) * normal(i);
            db[i % channels] += dz(i);
        }
    }
    [like(x, dx), tensor(dw, &[channels], DType::F32), tensor(db, &[channels], DType::F32)]
}
