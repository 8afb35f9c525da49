//! Linear layers and convolutions as products, or by Winograd's algorithm, with their gradients.

use super::gemm::{Gemm, fuses_geglu, gemm};
use super::layout::interleave;
use super::operand::{Rows, Window};
use super::pack::Packed;
use super::panels::Panels;
use super::winograd::{self, Direction};
use super::{elementwise, rows};
use crate::backend::{Activation, Binary, ConvShape, Epilogue, Matrix};
use crate::dtype::DType;
use crate::stored::StoredWeight;
use crate::tensor::Tensor;

/// x (.., in), W (out, in) → (.., out), or (.., out / 2) with GEGLU.
pub(super) fn linear(x: &Tensor, w: Matrix, epilogue: &Epilogue) -> Tensor {
    let (out, panels) = match w {
        Matrix::Packed(w) => {
            let w = w.elements::<Packed>();
            (w.out, Panels::Packed(w))
        }
        Matrix::Stored(w @ StoredWeight { out, .. }) => (*out, Panels::Stored(w)),
    };
    let Epilogue { act, residual, .. } = *epilogue;
    if act == Activation::Geglu && !fuses_geglu(out) {
        let plain = Epilogue { act: Activation::None, residual: None, ..*epilogue };
        let y = rows::geglu(&linear(x, w, &plain));
        return residual.map_or(y.clone(), |r| elementwise::binary(Binary::Add, &y, r));
    }
    let y = gemm(&Gemm {
        m: x.rows(),
        n: out,
        k: x.last_dim(),
        taps: 1,
        a: Rows::Matrix(x),
        b: panels,
        epilogue: *epilogue,
        dtype: x.dtype(),
    });
    let width = if act == Activation::Geglu { out / 2 } else { out };
    Tensor::new(y, &with_last_dim(x, width), x.dtype())
}

/// The shape of x with another last dimension.
fn with_last_dim(x: &Tensor, width: usize) -> Vec<usize> {
    let outer = &x.shape()[..x.shape().len() - 1];
    [outer, &[width]].concat()
}

/// dx (.., in) = dy (.., out) W.
pub(super) fn linear_dx(dy: &Tensor, w: &Packed) -> Tensor {
    let dx = gemm(&Gemm {
        m: dy.rows(),
        n: w.inp,
        k: w.out,
        taps: 1,
        a: Rows::Matrix(dy),
        b: Panels::Transposed(w),
        epilogue: Epilogue::NONE,
        dtype: dy.dtype(),
    });
    Tensor::new(dx, &with_last_dim(dy, w.inp), dy.dtype())
}

/// dW (out, in) = dyᵀ x, in f32.
pub(super) fn linear_dw(dy: &Tensor, x: &Tensor) -> Tensor {
    transposed_product(dy, x.last_dim(), Panels::Matrix(x))
}

/// dyᵀ (out, rows) B (rows, in), in f32.
fn transposed_product(dy: &Tensor, inp: usize, b: Panels) -> Tensor {
    let out = dy.last_dim();
    let dw = gemm(&Gemm {
        m: out,
        n: inp,
        k: dy.rows(),
        taps: 1,
        a: Rows::Transposed(dy),
        b,
        epilogue: Epilogue::NONE,
        dtype: DType::F32,
    });
    Tensor::new(dw, &[out, inp], DType::F32)
}

/// x (B, H, W, I) → (B, Ho, Wo, O).
pub(super) fn conv2d(x: &Tensor, w: &Packed, s: ConvShape, epilogue: &Epilogue) -> Tensor {
    let shape = [x.dim(0), s.output[0], s.output[1], w.out];
    if winograd::pays(x, [w.inp, w.out], w.store, s) {
        return Tensor::new(winograd::conv3x3(x, w, Direction::Forward, epilogue), &shape, x.dtype());
    }
    let (a, b) = (pixels(x, Window::forward(s)), Panels::Packed(w));
    convolution(shape, [w.inp, w.taps], a, b, epilogue)
}

/// dx (B, H, W, I): each pixel gathers from the windows that hold it.
pub(super) fn conv2d_dx(dy: &Tensor, w: &Packed, s: ConvShape) -> Tensor {
    let shape = [dy.dim(0), s.input[0], s.input[1], w.inp];
    if winograd::pays(dy, [w.inp, w.out], w.store, s) {
        let dx = winograd::conv3x3(dy, w, Direction::Backward, &Epilogue::NONE);
        return Tensor::new(dx, &shape, dy.dtype());
    }
    let (a, b) = (pixels(dy, Window::backward(s)), Panels::Transposed(w));
    convolution(shape, [w.out, w.taps], a, b, &Epilogue::NONE)
}

/// A product whose rows are the pixels of an image of shape `out`.
fn convolution(out: [usize; 4], [k, taps]: [usize; 2], a: Rows, b: Panels, epilogue: &Epilogue) -> Tensor {
    let (dtype, [batch, height, width, n]) = (a.dtype(), out);
    let y = gemm(&Gemm { m: batch * height * width, n, k, taps, a, b, epilogue: *epilogue, dtype });
    Tensor::new(y, &out, dtype)
}

/// An image's pixels under a window; under one of a single pixel they are a matrix's rows.
fn pixels(x: &Tensor, window: Window) -> Rows<'_> {
    match window {
        Window { kernel: [1, 1], stride: 1, .. } => Rows::Matrix(x),
        _ => Rows::Image(x, window),
    }
}

/// dW (O, I, kh, kw), in f32.
pub(super) fn conv2d_dw(dy: &Tensor, x: &Tensor, s: ConvShape) -> Tensor {
    let window = Window::forward(s);
    let of_tap = |tap| transposed_product(dy, x.last_dim(), Panels::Image(x, window, tap));
    let mut taps: Vec<Tensor> = (0..s.kernel[0] * s.kernel[1]).map(of_tap).collect(); // (O, I) each
    let dw = if taps.len() == 1 { taps.remove(0) } else { interleave(&taps) };
    dw.viewed(&[dy.last_dim(), x.last_dim(), s.kernel[0], s.kernel[1]])
}
