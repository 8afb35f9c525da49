//! Linear layers.

use super::check;
use crate::backend::{Activation, Epilogue, Over};
use crate::ops;
use crate::tape::{node_of, record};
use crate::tensor::Tensor;
use crate::weight::Weight;

/// What a linear layer does to its product; by default nothing.
#[derive(Clone, Copy, Default)]
pub struct LinearArgs<'a> {
    /// (out): added to every row.
    pub bias: Option<&'a Tensor>,
    /// Applied to the sum.
    pub act: Activation,
    /// Of the result's shape and dtype: added last.
    pub residual: Option<&'a Tensor>,
}

/// act(x Wᵀ + bias) + residual. x (.., in) → (.., out), or (.., out / 2) for [`Activation::Geglu`]. `bias` is (out), f32 or
/// bf16 whatever x is; `residual` has the shape and the dtype of the result. A sum over no inputs is 0.
///
/// # Panics
/// If a shape or the residual's dtype is another, the weight is one of a convolution, or GEGLU has an odd `out`.
pub fn linear(x: &Tensor, w: &Weight, args: LinearArgs) -> Tensor {
    let shape = result_shape(x, w, args);
    let LinearArgs { bias, act, residual } = args;
    let nodes = [x.node(), w.node(), node_of(bias), node_of(residual)];
    if act != Activation::None && nodes[..3].iter().any(Option::is_some) {
        let y = act.apply(&linear(x, w, LinearArgs { bias, ..LinearArgs::default() }));
        return residual.map_or(y.clone(), |r| ops::add(&y, r));
    }
    let y = x.kernels().linear(x, w.matrix(), &Epilogue { bias, shift: None, act, residual }).reshape(&shape);
    let (kx, kw) = (w.node().map(|_| x.detach()), w.clone());
    let (needs_x, bias_dtype) = (x.requires_grad(), node_of(bias).and(bias).map(Tensor::dtype));
    record(y, &nodes, move |dy| {
        let dx = needs_x.then(|| dy.kernels().linear_dx(dy, kw.packed()));
        let dw = kx.map(|x| kw.gradient(dy.kernels().linear_dw(dy, &x)));
        let db = bias_dtype.map(|dtype| dy.kernels().sum(dy, Over::Rows).to_dtype(dtype));
        vec![dx, dw, db, Some(dy.clone())]
    })
}

/// The shape of the result, where all inputs fit.
fn result_shape(x: &Tensor, w: &Weight, LinearArgs { bias, act, residual }: LinearArgs) -> Vec<usize> {
    let (inp, out) = (w.inp(), w.out());
    assert!(w.kernel() == [1, 1], "linear: kernel of the weight: expected [1, 1], found {:?}", w.kernel());
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
