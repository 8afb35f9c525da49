//! Linear layers.

use super::check;
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
    /// The activation as an op of its own: x (.., n) → (.., n), or (.., n / 2) for [`Activation::Geglu`].
    ///
    /// # Panics
    /// GEGLU of an odd n.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::None => x.clone(),
            Activation::Silu => ops::silu(x),
            Activation::Gelu => ops::gelu(x),
            Activation::QuickGelu => ops::quick_gelu(x),
            Activation::Geglu => ops::geglu(x),
        }
    }
}

/// act(x Wᵀ + bias) + residual. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`]. `bias` is (out), f32 or
/// bf16 whatever x is; `residual` has the shape and the dtype of the result. A sum over no inputs is 0.
///
/// # Panics
/// If a shape or the residual's dtype is another, the weight is one of a convolution, or GEGLU has an odd `out`.
pub fn linear(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let shape = result_shape(x, w, bias, act, residual);
    let trains = needs(Some(x)) || needs(w.source.as_ref()) || needs(bias);
    let fused = !trains && (act != Activation::Geglu || fuses_geglu(w.out()));
    if act != Activation::None && !fused {
        let y = act.apply(&linear(x, w, bias, Activation::None, None));
        return residual.map_or(y.clone(), |r| ops::add(&y, r));
    }
    let y = gemm(&Gemm {
        m: x.rows(),
        n: w.out(),
        k: w.inp(),
        taps: 1,
        a: Rows::Matrix(x),
        b: w.panels(),
        epilogue: Epilogue { bias, shift: None, act, residual },
        dtype: x.dtype(),
    });
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

/// The shape of the result, where all inputs fit.
fn result_shape(
    x: &Tensor,
    w: &Weight,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Vec<usize> {
    let (inp, out) = (w.inp(), w.out());
    assert!(w.kernel == [1, 1], "linear: kernel of the weight: expected [1, 1], found {:?}", w.kernel);
    let Some((_, outer)) = x.shape().split_last().filter(|(last, _)| **last == inp) else {
        panic!("linear: shape of x: expected (.., {inp}), found {:?}", x.shape())
    };
    assert!(
        act != Activation::Geglu || out.is_multiple_of(2),
        "linear: outputs for GEGLU: expected an even number, found {out}"
    );
    let width = if act == Activation::Geglu { out / 2 } else { out };
    let shape = [outer, &[width]].concat();
    if let Some(bias) = bias {
        check::shape("linear", "bias", bias, &[out]);
    }
    if let Some(residual) = residual {
        check::shape("linear", "residual", residual, &shape);
        check::dtype("linear", "residual", residual, x.dtype());
    }
    shape
}

/// dx (m, in) = dy (m, out) W.
fn input_gradient(dy: &Tensor, w: &Weight) -> Tensor {
    let m = dy.rows();
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
        k: dy.rows(),
        taps: 1,
        a: Rows::Transposed(dy),
        b: Panels::Matrix(x),
        epilogue: Epilogue::NONE,
        dtype: DType::F32,
    });
    Tensor::new(dw, &[out, inp], DType::F32)
}
