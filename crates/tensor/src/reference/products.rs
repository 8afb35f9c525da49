//! Linear layers and convolutions.

use super::{Matrix, Reference, rounded, tensor, unary, values};
use crate::backend::{Activation, Backend, ConvShape, Epilogue, RowOp};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// x (.., in) → (.., out), or (.., out / 2) with GEGLU.
pub(super) fn linear(x: &Tensor, w: &Matrix, epilogue: &Epilogue) -> Tensor {
    let [out, inp, _] = w.shape;
    let mut y = Vec::new();
    let found = values(x);
    for row in 0..x.rows() {
        for o in 0..out {
            y.push((0..inp).map(|i| found[row * inp + i] * f64::from(w.values[o * inp + i])).sum());
        }
    }
    let shape = [&x.shape()[..x.shape().len() - 1], &[out]].concat();
    finished(y, &shape, x.dtype(), epilogue)
}

/// act(product + bias + shift) + residual.
fn finished(mut y: Vec<f64>, shape: &[usize], dtype: DType, epilogue: &Epilogue) -> Tensor {
    let width = shape[shape.len() - 1];
    if let Some(bias) = epilogue.bias.map(values) {
        y.iter_mut().enumerate().for_each(|(i, y)| *y += bias[i % width]);
    }
    if let Some(shift) = epilogue.shift {
        let (image, shift) = (y.len() / shape[0].max(1), values(shift));
        y.iter_mut().enumerate().for_each(|(i, y)| *y += shift[i / image * width + i % width]);
    }
    // An activation's input is rounded, and so is its result: as those of an op of its own.
    let mut y = match (epilogue.act, epilogue.act.unary()) {
        (Activation::Geglu, _) => Reference.rows(RowOp::Geglu, &tensor(y, shape, dtype)),
        (_, Some(op)) => {
            let act = |y: f64| unary(op, f64::from(rounded(y as f32, dtype)));
            tensor(y.into_iter().map(act).collect(), shape, dtype)
        }
        (_, None) => {
            let residual = epilogue.residual.map(values).unwrap_or_else(|| vec![0.0; y.len()]);
            let sum = y.into_iter().zip(residual).map(|(y, r)| y + r).collect();
            return tensor(sum, shape, dtype);
        }
    };
    if let Some(residual) = epilogue.residual {
        let sum = values(&y).into_iter().zip(values(residual)).map(|(y, r)| y + r).collect();
        y = tensor(sum, y.shape(), dtype);
    }
    y
}

/// dx (.., in) = dy (.., out) W.
pub(super) fn linear_dx(dy: &Tensor, w: &Matrix) -> Tensor {
    let [out, inp, _] = w.shape;
    let (mut dx, found) = (Vec::new(), values(dy));
    for row in 0..dy.rows() {
        for i in 0..inp {
            dx.push((0..out).map(|o| found[row * out + o] * f64::from(w.values[o * inp + i])).sum());
        }
    }
    tensor(dx, &[&dy.shape()[..dy.shape().len() - 1], &[inp]].concat(), dy.dtype())
}

/// dW (out, in) = dyᵀ x.
pub(super) fn linear_dw(dy: &Tensor, x: &Tensor) -> Tensor {
    let (out, inp) = (dy.last_dim(), x.last_dim());
    let (dy_values, found) = (values(dy), values(x));
    let mut dw = Vec::new();
    for (o, i) in (0..out).flat_map(|o| (0..inp).map(move |i| (o, i))) {
        dw.push((0..x.rows()).map(|row| dy_values[row * out + o] * found[row * inp + i]).sum());
    }
    tensor(dw, &[out, inp], DType::F32)
}

/// Calls `visit` for each output pixel, tap and input pixel that meet: the pixels' numbers over all images.
fn windows(batch: usize, s: ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let ([h, w], [ho, wo], [kh, kw]) = (s.input, s.output, s.kernel);
    for to in 0..batch * ho * wo {
        let (image, y, x) = (to / (ho * wo), to / wo % ho, to % wo);
        for tap in 0..kh * kw {
            let from = (
                (y * s.stride + tap / kw).checked_sub(s.pad[0]).filter(|y| *y < h),
                (x * s.stride + tap % kw).checked_sub(s.pad[1]).filter(|x| *x < w),
            );
            if let (Some(y), Some(x)) = from {
                visit(to, tap, (image * h + y) * w + x);
            }
        }
    }
}

/// x (B, H, W, I) → (B, Ho, Wo, O).
pub(super) fn conv2d(x: &Tensor, w: &Matrix, s: ConvShape, epilogue: &Epilogue) -> Tensor {
    let [out, inp, taps] = w.shape;
    let (batch, found) = (x.dim(0), values(x));
    let mut y = vec![0.0; batch * s.output[0] * s.output[1] * out];
    windows(batch, s, |to, tap, from| {
        for (o, i) in (0..out).flat_map(|o| (0..inp).map(move |i| (o, i))) {
            y[to * out + o] += found[from * inp + i] * f64::from(w.values[(o * inp + i) * taps + tap]);
        }
    });
    finished(y, &[batch, s.output[0], s.output[1], out], x.dtype(), epilogue)
}

/// dx (B, H, W, I).
pub(super) fn conv2d_dx(dy: &Tensor, w: &Matrix, s: ConvShape) -> Tensor {
    let [out, inp, taps] = w.shape;
    let (batch, found) = (dy.dim(0), values(dy));
    let mut dx = vec![0.0; batch * s.input[0] * s.input[1] * inp];
    windows(batch, s, |to, tap, from| {
        for (o, i) in (0..out).flat_map(|o| (0..inp).map(move |i| (o, i))) {
            dx[from * inp + i] += found[to * out + o] * f64::from(w.values[(o * inp + i) * taps + tap]);
        }
    });
    tensor(dx, &[batch, s.input[0], s.input[1], inp], dy.dtype())
}

/// dW (O, I, kh, kw).
pub(super) fn conv2d_dw(dy: &Tensor, x: &Tensor, s: ConvShape) -> Tensor {
    let (out, inp, taps) = (dy.last_dim(), x.last_dim(), s.kernel[0] * s.kernel[1]);
    let (dy_values, found) = (values(dy), values(x));
    let mut dw = vec![0.0; out * inp * taps];
    windows(x.dim(0), s, |to, tap, from| {
        for (o, i) in (0..out).flat_map(|o| (0..inp).map(move |i| (o, i))) {
            dw[(o * inp + i) * taps + tap] += dy_values[to * out + o] * found[from * inp + i];
        }
    });
    tensor(dw, &[out, inp, s.kernel[0], s.kernel[1]], DType::F32)
}
