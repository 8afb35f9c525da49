//! Linear layers.

use crate::cpu::gemm::{Epilogue, Gemm, fuses_geglu, gemm};
use crate::cpu::operand::Rows;
use crate::cpu::panels::Panels;
use crate::tape::{needs, record};
use crate::{DType, Tensor, Weight, ops};

/// What is done to a linear layer's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x).
    Silu,
    /// x Φ(x).
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// First half · gelu(second half): halves the width.
    Geglu,
}

impl Activation {
    /// The activation as an op of its own.
    fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::None => x.clone(),
            Activation::Silu => ops::silu(x),
            Activation::Gelu => ops::gelu(x),
            Activation::QuickGelu => ops::quick_gelu(x),
            Activation::Geglu => ops::geglu(x),
        }
    }
}

/// act(x Wᵀ + bias) + residual. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`].
pub fn linear(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    assert_eq!(x.last_dim(), w.inp(), "inputs of a linear layer");
    let trains = needs(Some(x)) || needs(w.source.as_ref()) || needs(bias);
    let fused = !trains && (act != Activation::Geglu || fuses_geglu(w.out()));
    if act != Activation::None && !fused {
        let y = act.apply(&linear(x, w, bias, Activation::None, None));
        return residual.map_or(y.clone(), |r| ops::add(&y, r));
    }
    let m = x.numel() / x.last_dim();
    let y = gemm(&Gemm {
        m,
        n: w.out(),
        k: w.inp(),
        taps: 1,
        a: Rows::Matrix(x),
        b: w.panels(),
        epilogue: Epilogue { bias, shift: None, act, residual },
        dtype: x.dtype(),
    });
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last dimension") =
        if act == Activation::Geglu { w.out() / 2 } else { w.out() };
    let y = Tensor::new(y, &shape, x.dtype());
    let (kx, kw) = (needs(w.source.as_ref()).then(|| x.detach()), w.clone());
    let (x_shape, needs_x, needs_bias) = (x.shape().to_vec(), needs(Some(x)), needs(bias));
    let bias_dtype = bias.map(Tensor::dtype);
    record(y, &[Some(x), w.source.as_ref(), bias, residual], move |dy| {
        let dx = needs_x.then(|| input_gradient(dy, &kw).reshape(&x_shape));
        let dw = kx.map(|x| kw.gradient(&[weight_gradient(dy, &x)]));
        let db = needs_bias.then(|| ops::sum_rows(dy).to_dtype(bias_dtype.unwrap_or(DType::F32)));
        vec![dx, dw, db, Some(dy.clone())]
    })
}

/// dx (m, in) = dy (m, out) W.
fn input_gradient(dy: &Tensor, w: &Weight) -> Tensor {
    let m = dy.numel() / w.out();
    let dx = gemm(&Gemm {
        m,
        n: w.inp(),
        k: w.out(),
        taps: 1,
        a: Rows::Matrix(dy),
        b: Panels::Transposed(w.packed()),
        epilogue: Epilogue::NONE,
        dtype: dy.dtype(),
    });
    Tensor::new(dx, &[m, w.inp()], dy.dtype())
}

/// dW (out, in) = dyᵀ x, in f32.
pub(crate) fn weight_gradient(dy: &Tensor, x: &Tensor) -> Tensor {
    let (out, inp) = (dy.last_dim(), x.last_dim());
    let dw = gemm(&Gemm {
        m: out,
        n: inp,
        k: dy.numel() / out,
        taps: 1,
        a: Rows::Transposed(dy),
        b: Panels::Matrix(x),
        epilogue: Epilogue::NONE,
        dtype: DType::F32,
    });
    Tensor::new(dw, &[out, inp], DType::F32)
}
