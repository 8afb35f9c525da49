//! Convolutions over NHWC images, as implicit matrix products or, where that is faster, by Winograd's algorithm.

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
    /// Half the kernel's size on every side.
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
        let (pad, padded) = match self.padding {
            Padding::Same => (kernel[0] / 2, kernel[0] / 2 * 2),
            Padding::BottomRight => (0, 1),
        };
        let out = |i: usize| (size[i] + padded - kernel[i]) / self.stride + 1;
        Window { size, rows: [out(0), out(1)], kernel, stride: self.stride, pad, transposed: false }
    }
}

/// x (B, H, W, I) → (B, Ho, Wo, O): convolution + bias (O) + shift (B, O) + residual (B, Ho, Wo, O).
pub fn conv2d(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    conv: Conv,
    shift: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> Tensor {
    let &[batch, height, width, channels] = x.shape() else { panic!("images are (B, H, W, C)") };
    assert_eq!(channels, w.inp(), "channels of a convolution");
    let window = conv.window([height, width], w.kernel);
    let [ho, wo] = window.rows;
    let epilogue = Epilogue { bias, shift, act: Activation::None, residual };
    let y = if window.is_same3x3() && winograd::pays(x, w.packed()) {
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
    if window.is_same3x3() && winograd::pays(dy, w.packed()) {
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
            k: dy.numel() / out,
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
