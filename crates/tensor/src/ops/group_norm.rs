//! Group normalisation.

use super::check;
use crate::backend::GroupNormArgs;
use crate::tape::record;
use crate::tensor::Tensor;

/// Normalises each group of channels of each image to mean 0 and variance 1, then scales and shifts each
/// channel; with `silu`, SiLU follows.
///
/// x (B, .., C) → (B, .., C), channels last. `weight` and `bias` are (C), f32 or bf16 whatever x is. `groups`
/// divides C. `eps` is added to the variance (biased, as in PyTorch). Statistics are f32.
///
/// # Panics
/// If a shape is another, or `groups` is 0 or does not divide C.
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, norm: GroupNormArgs) -> Tensor {
    check_inputs(x, norm.groups, weight, bias);
    let dtypes = [weight.dtype(), bias.dtype()];
    let inputs = [x.node(), weight.node(), bias.node()];
    if x.numel() == 0 {
        let (dx, channels) = (x.detach(), x.last_dim());
        return record(x.detach(), &inputs, move |dy| {
            let [dw, db] = dtypes.map(|dtype| Some(dy.kernels().full(&[channels], 0.0, dtype)));
            vec![Some(dx), dw, db]
        });
    }
    let [y, moments] = x.kernels().group_norm(norm, x, weight, bias);
    let (saved, with_dx) = ([x.detach(), weight.detach(), bias.detach(), moments], x.requires_grad());
    record(y, &inputs, move |dy| {
        let (dx, [dw, db]) = dy.kernels().group_norm_grad(norm, saved.each_ref(), dy, with_dx);
        vec![dx, Some(dw.to_dtype(dtypes[0])), Some(db.to_dtype(dtypes[1]))]
    })
}

fn check_inputs(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor) {
    assert!(x.shape().len() >= 2, "group_norm: shape of x: expected (B, .., C), found {:?}", x.shape());
    let channels = x.last_dim();
    let fits = groups > 0 && channels.is_multiple_of(groups);
    assert!(fits, "group_norm: groups: expected a divisor of {channels} channels, found {groups}");
    check::shape("group_norm", "weight", weight, &[channels]);
    check::shape("group_norm", "bias", bias, &[channels]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of a large image, which many tasks share, are exact, also around a large offset.
    #[test]
    fn moments_of_a_large_image() {
        let (pixels, channels, groups) = (70 * 70, 48, 6);
        let value = |i: usize| {
            let wave = ((i * i) as f64 * 0.37).sin() + 0.001 * (i / 1000) as f64;
            (100.0 + wave * (1 + i % channels / 8) as f64) as f32
        };
        let x = Tensor::from_vec((0..2 * pixels * channels).map(value).collect(), &[2, 70, 70, channels]);
        let (one, zero) = (vec![1.0; channels], vec![0.0; channels]);
        let (one, zero) = (Tensor::from_vec(one, &[channels]), Tensor::from_vec(zero, &[channels]));
        let y = group_norm(&x, &one, &zero, GroupNormArgs { groups, eps: 1e-6, silu: false });
        let width = channels / groups;
        for (image, group) in [(0, 0), (0, 5), (1, 0), (1, 3)] {
            let at = |i: usize| image * pixels * channels + i / width * channels + group * width + i % width;
            let values: Vec<f64> = (0..pixels * width).map(|i| f64::from(x.f32s()[at(i)])).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
            for i in (0..values.len()).step_by(997) {
                let want = (values[i] - mean) / (variance + 1e-6).sqrt();
                let found = f64::from(y.f32s()[at(i)]);
                assert!(
                    (found - want).abs() < 2e-5,
                    "image {image}, group {group}: {found}, expected {want}"
                );
            }
        }
    }
}
