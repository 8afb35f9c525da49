//! Convolutions over NHWC images, as implicit matrix products or, where that is faster, by Winograd's algorithm.

use super::check;
use crate::cpu::gemm::{Epilogue, Gemm, gemm};
use crate::cpu::operand::{Rows, Window};
use crate::cpu::panels::Panels;
use crate::cpu::winograd::{self, Direction};
use crate::ops::Activation;
use crate::tape::{needs, record};
use crate::{DType, Tensor, Weight, ops};

/// Where an image is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Half the kernel's height above and below, half its width on the left and on the right, rounded down.
    Same,
    /// One row below and one column on the right: the VAE encoder's downsampling.
    BottomRight,
}

/// Stride and padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// 1 or 2, in both directions.
    pub stride: usize,
    /// Where zeros are added.
    pub padding: Padding,
}

impl Conv {
    /// The window of a `kernel` over an image of height and width `size`.
    fn window(&self, size: [usize; 2], kernel: [usize; 2]) -> Window {
        assert!(matches!(self.stride, 1 | 2), "conv2d: stride: expected 1 or 2, found {}", self.stride);
        let (pad, padded) = match self.padding {
            Padding::Same => (kernel.map(|k| k / 2), kernel.map(|k| k / 2 * 2)),
            Padding::BottomRight => ([0, 0], [1, 1]),
        };
        let fits = |i: usize| kernel[i] > 0 && kernel[i] <= size[i] + padded[i];
        assert!(
            fits(0) && fits(1),
            "conv2d: kernel: expected 1 pixel to the size of the padded image {size:?}, found {kernel:?}"
        );
        let out = |i: usize| (size[i] + padded[i] - kernel[i]) / self.stride + 1;
        Window { size, rows: [out(0), out(1)], kernel, stride: self.stride, pad, transposed: false }
    }
}

/// x (B, H, W, I) → (B, Ho, Wo, O): convolution + bias (O) + shift (B, O) + residual (B, Ho, Wo, O). Bias and shift are f32 or
/// bf16 whatever x is; the residual has x's dtype. A sum over no channels is 0.
///
/// # Panics
/// If a shape or the residual's dtype is another, the stride is neither 1 nor 2, or the kernel is empty or larger than the
/// padded image.
pub fn conv2d(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    conv: Conv,
    shift: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> Tensor {
    let [batch, height, width, channels] = check::image("conv2d", x);
    check::shape("conv2d", "x", x, &[batch, height, width, w.inp()]);
    let window = conv.window([height, width], w.kernel);
    let [ho, wo] = window.rows;
    check_added(&[batch, ho, wo, w.out()], x.dtype(), bias, shift, residual);
    let epilogue = Epilogue { bias, shift, act: Activation::None, residual };
    let y = if by_winograd(x, w, window) {
        winograd::conv3x3(x, w.packed(), Direction::Forward, &epilogue)
    } else {
        gemm(&Gemm {
            m: batch * ho * wo,
            n: w.out(),
            k: channels,
            taps: w.taps(),
            a: rows(x, window),
            b: w.panels(),
            epilogue,
            dtype: x.dtype(),
        })
    };
    let y = Tensor::new(y, &[batch, ho, wo, w.out()], x.dtype());
    let (kx, kw) = (needs(w.source.as_ref()).then(|| x.detach()), w.clone());
    let (needs_x, needs_bias) = (needs(Some(x)), needs(bias));
    let (bias_dtype, shift_dtype) =
        (bias.map(Tensor::dtype), shift.filter(|s| s.requires_grad()).map(Tensor::dtype));
    record(y, &[Some(x), w.source.as_ref(), bias, shift, residual], move |dy| {
        let dx = needs_x.then(|| input_gradient(dy, &kw, window));
        let dw = kx.map(|x| kw.gradient(&weight_gradient(dy, &x, window)));
        let db = needs_bias.then(|| ops::sum_rows(dy).to_dtype(bias_dtype.unwrap_or(DType::F32)));
        let ds = shift_dtype.map(|dtype| ops::sum_images(dy).to_dtype(dtype));
        vec![dx, dw, db, ds, Some(dy.clone())]
    })
}

/// That what is added to the result, of shape `out`, fits.
fn check_added(
    out: &[usize; 4],
    dtype: DType,
    bias: Option<&Tensor>,
    shift: Option<&Tensor>,
    residual: Option<&Tensor>,
) {
    let &[batch, _, _, channels] = out;
    if let Some(bias) = bias {
        check::shape("conv2d", "bias", bias, &[channels]);
    }
    if let Some(shift) = shift {
        check::shape("conv2d", "shift", shift, &[batch, channels]);
    }
    if let Some(residual) = residual {
        check::shape("conv2d", "residual", residual, out);
        check::dtype("conv2d", "residual", residual, dtype);
    }
}

/// Whether this way through `w`, from x to y or from dy to dx, goes by Winograd's algorithm.
fn by_winograd(x: &Tensor, w: &Weight, window: Window) -> bool {
    let empty = x.numel() == 0 || w.out() == 0 || w.inp() == 0;
    window.is_same3x3() && !empty && winograd::pays(x, w.packed())
}

/// An image's pixels under a window; under one of a single pixel they are a matrix's rows.
fn rows(x: &Tensor, window: Window) -> Rows<'_> {
    match window {
        Window { kernel: [1, 1], stride: 1, .. } => Rows::Matrix(x),
        _ => Rows::Image(x, window),
    }
}

/// dx (B, H, W, I): each pixel gathers from the windows that hold it.
fn input_gradient(dy: &Tensor, w: &Weight, window: Window) -> Tensor {
    let batch = dy.dim(0);
    let [height, width] = window.size;
    if by_winograd(dy, w, window) {
        let dx = winograd::conv3x3(dy, w.packed(), Direction::Backward, &Epilogue::NONE);
        return Tensor::new(dx, &[batch, height, width, w.inp()], dy.dtype());
    }
    let back = Window { size: window.rows, rows: window.size, transposed: true, ..window };
    let dx = gemm(&Gemm {
        m: batch * height * width,
        n: w.inp(),
        k: w.out(),
        taps: w.taps(),
        a: rows(dy, back),
        b: Panels::Transposed(w.packed()),
        epilogue: Epilogue::NONE,
        dtype: dy.dtype(),
    });
    Tensor::new(dx, &[batch, height, width, w.inp()], dy.dtype())
}

/// dW of each kernel position, (O, I), in f32.
fn weight_gradient(dy: &Tensor, x: &Tensor, window: Window) -> Vec<Tensor> {
    let (out, inp) = (dy.last_dim(), x.last_dim());
    let tap_gradient = |tap| {
        let dw = gemm(&Gemm {
            m: out,
            n: inp,
            k: dy.rows(),
            taps: 1,
            a: Rows::Transposed(dy),
            b: Panels::Image(x, window, tap),
            epilogue: Epilogue::NONE,
            dtype: DType::F32,
        });
        Tensor::new(dw, &[out, inp], DType::F32)
    };
    (0..window.kernel[0] * window.kernel[1]).map(tap_gradient).collect()
}
