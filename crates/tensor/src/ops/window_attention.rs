//! Attention in windows.

use super::check;
use crate::backend::WindowArgs;
use crate::dtype::DType;
use crate::tensor::Tensor;

/// softmax(scale q·k + bias) v of each pixel with those of its window, for each of `heads` heads (Liu et al., "Swin Transformer" and
/// "Swin Transformer V2", 2021).
/// q, k and v (B, H, W, heads · d) → (B, H, W, heads · d), all of one dtype. H and W are multiples of the window's side.
///
/// # Panics
/// If a shape or dtype is another, `heads` or the window is 0, the shift is not less than the window, or an input requires a gradient:
/// there is no way back.
pub fn window_attention(q: &Tensor, k: &Tensor, v: &Tensor, args: WindowArgs) -> Tensor {
    const OP: &str = "window_attention";
    let [_, height, width, features] = check::image(OP, q);
    check::alike(OP, "k", k, q);
    check::alike(OP, "v", v, q);
    let WindowArgs { heads, window, shift, scale, bias, .. } = args;
    let fits = heads > 0 && features.is_multiple_of(heads);
    assert!(fits, "{OP}: width of q: expected a multiple of {heads} heads, found {features}");
    let whole = window > 0 && height.is_multiple_of(window) && width.is_multiple_of(window);
    assert!(whole, "{OP}: size of q: expected multiples of a window of {window}, found {height} × {width}");
    assert!(shift < window, "{OP}: shift: expected less than a window of {window}, found {shift}");
    check::shape(OP, "scale", scale, &[heads]);
    check::shape(OP, "bias", bias, &[heads, window * window, window * window]);
    for (name, x) in [("scale", scale), ("bias", bias)] {
        check::dtype(OP, name, x, DType::F32);
    }
    let inputs = [q, k, v, scale, bias];
    assert!(!inputs.iter().any(|x| x.requires_grad()), "{OP}: expected inputs that require no gradient");
    if q.numel() == 0 {
        return q.detach();
    }
    q.kernels().window_attention(&args, [q, k, v])
}
