//! Layer normalisation.

use super::check;
use crate::tape::record;
use crate::tensor::Tensor;

/// Normalises the last dimension to mean 0 and variance 1, then scales and shifts each feature.
///
/// x (.., C) → (.., C). `weight` and `bias` are (C), f32 or bf16 whatever x is. `eps` is added to the variance
/// (biased, as in PyTorch). Statistics are f32.
///
/// # Panics
/// If a shape is another.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    check::has_rows("layer_norm", x);
    check::shape("layer_norm", "weight", weight, &[x.last_dim()]);
    check::shape("layer_norm", "bias", bias, &[x.last_dim()]);
    let dtypes = [weight.dtype(), bias.dtype()];
    let inputs = [x.node(), weight.node(), bias.node()];
    if x.numel() == 0 {
        let (dx, width) = (x.detach(), x.last_dim());
        return record(x.detach(), &inputs, move |dy| {
            let [dw, db] = dtypes.map(|dtype| Some(dy.kernels().full(&[width], 0.0, dtype)));
            vec![Some(dx), dw, db]
        });
    }
    let [y, moments] = x.kernels().layer_norm(eps, x, weight, bias);
    let (input, weight) = (x.detach(), weight.detach());
    record(y, &inputs, move |dy| {
        let [dx, dw, db] = dy.kernels().layer_norm_grad(&input, &weight, &moments, dy);
        vec![Some(dx), Some(dw.to_dtype(dtypes[0])), Some(db.to_dtype(dtypes[1]))]
    })
}
