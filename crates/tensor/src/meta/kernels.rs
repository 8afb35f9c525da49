//! The kernels of the meta device: shapes of results, and the work that the CPU's kernels would do.

use super::work::{self, NARROW, WorkKind};
use crate::backend::{
    Activation, AdafactorArgs, AdafactorAverages, AdamWArgs, AttentionSaved, Backend, Binary, ConvShape,
    Epilogue, GroupNormArgs, HeadShape, Mask, Matrix, Move, Over, RowOp, Unary, WindowArgs,
};
use crate::cpu::winograd;
use crate::dtype::DType;
use crate::memory::Packed;
use crate::tensor::Tensor;

/// The device's kernels.
pub(crate) struct Meta;

/// A weight (out, in, taps) without elements.
struct Panels {
    shape: [usize; 3],
}

/// The shape of x with another last dimension.
fn with_last_dim(x: &Tensor, width: usize) -> Vec<usize> {
    [&x.shape()[..x.shape().len() - 1], &[width]].concat()
}

/// Counts values that a kernel reads and writes.
fn values(count: usize) {
    work::add(WorkKind::Values, count as f64);
}

/// The result of a kernel that is not a product, of these inputs.
fn result(inputs: &[&Tensor], shape: &[usize], dtype: DType) -> Tensor {
    let y = Tensor::meta(shape, dtype);
    work::add(WorkKind::Calls, 1.0);
    values(y.numel() + inputs.iter().map(|x| x.numel()).sum::<usize>());
    y
}

/// The same, of the shape and the dtype of `x`.
fn like(inputs: &[&Tensor], x: &Tensor) -> Tensor {
    result(inputs, x.shape(), x.dtype())
}

/// Counts a product of `rows` rows with a weight (out, in, taps), either way round.
fn product(kind: WorkKind, rows: usize, [out, inp, taps]: [usize; 3]) {
    let weights = out as f64 * inp as f64 * taps as f64;
    let kind = if out.min(inp * taps) < NARROW { WorkKind::NarrowProduct } else { kind };
    work::add(kind, 2.0 * rows as f64 * weights);
    work::add(WorkKind::Weights, weights);
    work::add(WorkKind::Calls, 1.0);
}

/// The kind of a convolution of `x` (or, of the gradients, of dy).
fn kind_of_convolution(x: &Tensor, w: &Packed, s: ConvShape) -> WorkKind {
    let [out, inp, _] = w.elements::<Panels>().shape;
    if winograd::pays(x, [inp, out], w.store(), s) { WorkKind::Winograd } else { WorkKind::Product }
}

/// Counts an attention: `products` products of queries and keys.
fn attention(kind: WorkKind, s: HeadShape, products: f64) {
    let scores = (s.batch * s.heads * s.queries) as f64 * s.keys as f64;
    work::add(kind, products * 2.0 * scores * s.d as f64);
    work::add(WorkKind::Calls, 1.0);
}

impl Backend for Meta {
    fn full(&self, shape: &[usize], _: f32, dtype: DType) -> Tensor {
        result(&[], shape, dtype)
    }

    fn upload(&self, _: &[f32], shape: &[usize], dtype: DType) -> Tensor {
        result(&[], shape, dtype)
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        vec![0.0; x.numel()]
    }

    fn convert(&self, x: &Tensor, dtype: DType) -> Tensor {
        result(&[x], x.shape(), dtype)
    }

    fn unary(&self, _: Unary, x: &Tensor) -> Tensor {
        like(&[x], x)
    }

    fn unary_grad(&self, _: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        like(&[x, dy], x)
    }

    fn binary(&self, _: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        like(&[a, b], a)
    }

    fn scale_by(&self, x: &Tensor, _: f32, _: &Tensor) -> Tensor {
        like(&[x], x)
    }

    fn rows(&self, op: RowOp, x: &Tensor) -> Tensor {
        match op {
            RowOp::Softmax => like(&[x], x),
            RowOp::Geglu => result(&[x], &with_last_dim(x, x.last_dim() / 2), x.dtype()),
        }
    }

    fn rows_grad(&self, _: RowOp, saved: &Tensor, dy: &Tensor) -> Tensor {
        like(&[saved, dy], saved)
    }

    fn sum(&self, x: &Tensor, over: Over) -> Tensor {
        match over {
            Over::All => result(&[x], &[], DType::F32),
            Over::Rows => result(&[x], &[x.last_dim()], DType::F32),
            Over::ImageRows => result(&[x], &[x.dim(0), x.last_dim()], DType::F32),
        }
    }

    fn moved(&self, op: Move, xs: &[&Tensor]) -> Tensor {
        let x = xs[0];
        let with_first_dim = |size: usize| [&[size], &x.shape()[1..]].concat();
        let image = |height: usize, width: usize| vec![x.dim(0), height, width, x.dim(3)];
        let shape = match op {
            Move::Concat => with_last_dim(x, xs.iter().map(|x| x.last_dim()).sum()),
            Move::Columns { len, .. } => with_last_dim(x, len),
            Move::PlaceColumns { width, .. } => with_last_dim(x, width),
            Move::CatBatch => with_first_dim(xs.iter().map(|x| x.dim(0)).sum()),
            Move::SliceBatch { len, .. } => with_first_dim(len),
            Move::PlaceBatch { batch, .. } => with_first_dim(batch),
            Move::Upsample => image(2 * x.dim(1), 2 * x.dim(2)),
            Move::UpsampleGrad => image(x.dim(1) / 2, x.dim(2) / 2),
            Move::Canvas { height, width } => image(height, width),
            Move::TakeRows { ids } => with_first_dim(ids.len()),
            Move::AddRows { rows, .. } => with_first_dim(rows),
            Move::Repeat { shape } => shape.to_vec(),
        };
        let y = Tensor::meta(&shape, x.dtype());
        work::add(WorkKind::Calls, 1.0);
        values(2 * y.numel()); // a part of x may be all that is read
        y
    }

    fn linear(&self, x: &Tensor, w: Matrix, epilogue: &Epilogue) -> Tensor {
        let [out, inp, _] = match w {
            Matrix::Packed(w) => w.elements::<Panels>().shape,
            Matrix::Stored(w) => [w.out, w.inp, 1],
        };
        product(WorkKind::Product, x.rows(), [out, inp, 1]);
        if epilogue.act != Activation::None {
            values(x.rows() * out);
        }
        let width = if epilogue.act == Activation::Geglu { out / 2 } else { out };
        Tensor::meta(&with_last_dim(x, width), x.dtype())
    }

    fn linear_dx(&self, dy: &Tensor, w: &Packed) -> Tensor {
        let [out, inp, _] = w.elements::<Panels>().shape;
        product(WorkKind::Product, dy.rows(), [out, inp, 1]);
        Tensor::meta(&with_last_dim(dy, inp), dy.dtype())
    }

    fn linear_dw(&self, dy: &Tensor, x: &Tensor) -> Tensor {
        let (out, inp) = (dy.last_dim(), x.last_dim());
        product(WorkKind::WeightGradient, x.rows(), [out, inp, 1]);
        Tensor::meta(&[out, inp], DType::F32)
    }

    fn conv2d(&self, x: &Tensor, w: &Packed, shape: ConvShape, _: &Epilogue) -> Tensor {
        let (weight, batch, [height, width]) = (w.elements::<Panels>().shape, x.dim(0), shape.output);
        product(kind_of_convolution(x, w, shape), batch * height * width, weight);
        Tensor::meta(&[batch, height, width, weight[0]], x.dtype())
    }

    fn conv2d_dx(&self, dy: &Tensor, w: &Packed, shape: ConvShape) -> Tensor {
        product(kind_of_convolution(dy, w, shape), dy.rows(), w.elements::<Panels>().shape);
        let ([_, inp, _], [height, width]) = (w.elements::<Panels>().shape, shape.input);
        Tensor::meta(&[dy.dim(0), height, width, inp], dy.dtype())
    }

    fn conv2d_dw(&self, dy: &Tensor, x: &Tensor, shape: ConvShape) -> Tensor {
        let (out, inp, [kh, kw]) = (dy.last_dim(), x.last_dim(), shape.kernel);
        product(WorkKind::WeightGradient, dy.rows(), [out, inp, kh * kw]);
        Tensor::meta(&[out, inp, kh, kw], DType::F32)
    }

    fn attention(&self, shape: HeadShape, [q, ..]: [&Tensor; 3], _: Mask) -> (Tensor, Tensor) {
        attention(WorkKind::Attention, shape, 2.0);
        let lse = Tensor::meta(&[shape.batch * shape.heads, shape.queries], DType::F32);
        (Tensor::meta(q.shape(), q.dtype()), lse)
    }

    fn attention_grad(&self, saved: &AttentionSaved, _: &Tensor) -> [Tensor; 3] {
        attention(WorkKind::AttentionBackward, saved.shape, 5.0); // the scores again, and four gradients
        saved.qkv.each_ref().map(|x| Tensor::meta(x.shape(), x.dtype()))
    }

    fn window_attention(&self, args: &WindowArgs, [q, ..]: [&Tensor; 3]) -> Tensor {
        work::add(WorkKind::Attention, 2.0 * 2.0 * q.numel() as f64 * args.window.pow(2) as f64);
        work::add(WorkKind::Calls, 1.0);
        Tensor::meta(q.shape(), q.dtype())
    }

    fn group_norm(&self, norm: GroupNormArgs, x: &Tensor, _: &Tensor, _: &Tensor) -> [Tensor; 2] {
        [like(&[x], x), Tensor::meta(&[x.dim(0), norm.groups, 2], DType::F32)]
    }

    fn group_norm_grad(
        &self,
        _: GroupNormArgs,
        [x, ..]: [&Tensor; 4],
        dy: &Tensor,
        with_dx: bool,
    ) -> (Option<Tensor>, [Tensor; 2]) {
        let of_channels = || Tensor::meta(&[x.last_dim()], DType::F32);
        if with_dx {
            return (Some(like(&[x, dy], x)), [of_channels(), of_channels()]);
        }
        work::add(WorkKind::Calls, 1.0);
        values(2 * x.numel());
        (None, [of_channels(), of_channels()])
    }

    fn layer_norm(&self, _: f32, x: &Tensor, _: &Tensor, _: &Tensor) -> [Tensor; 2] {
        [like(&[x], x), Tensor::meta(&[x.rows(), 2], DType::F32)]
    }

    fn layer_norm_grad(&self, x: &Tensor, _: &Tensor, _: &Tensor, dy: &Tensor) -> [Tensor; 3] {
        let of_channels = || Tensor::meta(&[x.last_dim()], DType::F32);
        [like(&[x, dy], x), of_channels(), of_channels()]
    }

    fn pack(&self, _: &[u8], _: DType, shape: [usize; 3], store: DType) -> Packed {
        Packed::new(Panels { shape }, store)
    }

    fn pack_tensor(&self, w: &Tensor) -> Packed {
        values(2 * w.numel());
        Packed::new(Panels { shape: [w.dim(0), w.dim(1), w.shape()[2..].iter().product()] }, w.dtype())
    }

    fn unpack(&self, w: &Packed) -> Tensor {
        Tensor::meta(&w.elements::<Panels>().shape, DType::F32)
    }

    fn kept_zeros(&self, shape: &[usize]) -> Tensor {
        Tensor::meta(shape, DType::F32)
    }

    fn write(&self, _: &mut Tensor, _: &[f32]) {}

    fn sum_squares(&self, x: &Tensor) -> f64 {
        values(x.numel());
        0.0
    }

    fn add_to(&self, _: &mut Tensor, x: &Tensor) {
        values(3 * x.numel());
    }

    fn adamw(&self, _: &AdamWArgs, _: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor {
        values(6 * grad.numel());
        Tensor::meta(&[], DType::F32)
    }

    fn adafactor(&self, _: &AdafactorArgs, _: AdafactorAverages, grad: &mut Tensor) -> Tensor {
        values(3 * grad.numel());
        Tensor::meta(&[], DType::F32)
    }

    fn step(&self, _: &mut Tensor, _: f32, _: &Tensor, direction: &Tensor) {
        values(3 * direction.numel());
    }

    fn step_packed(&self, _: &mut Packed, _: f32, _: &Tensor, direction: &Tensor) {
        values(3 * direction.numel());
    }
}
