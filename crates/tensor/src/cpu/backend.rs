//! The CPU as a device: its kernels by the names of the seam.

use super::{Buffer, optim, pack, reduce, rows};
use super::{
    attention, attention_backward, elementwise, group_norm, layer_norm, layout, products, window_attention,
};
use crate::backend::{
    AdafactorArgs, AdafactorAverages, AdamWArgs, AttentionSaved, Backend, Binary, ConvShape, Epilogue,
    GroupNormArgs, HeadShape, Mask, Matrix, Move, Over, RowOp, Unary, WindowArgs,
};
use crate::dtype::DType;
use crate::memory::Packed;
use crate::tensor::Tensor;

/// The CPU's kernels.
pub(crate) struct Cpu;

impl Backend for Cpu {
    fn full(&self, shape: &[usize], value: f32, dtype: DType) -> Tensor {
        elementwise::full(shape, value, dtype)
    }

    fn upload(&self, values: &[f32], shape: &[usize], dtype: DType) -> Tensor {
        let x = elementwise::from_slice(values, shape);
        if dtype == DType::F32 { x } else { elementwise::convert(&x, dtype) }
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        elementwise::to_vec(x)
    }

    fn convert(&self, x: &Tensor, dtype: DType) -> Tensor {
        elementwise::convert(x, dtype)
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        elementwise::unary(op, x)
    }

    fn unary_grad(&self, op: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        elementwise::unary_grad(op, x, dy)
    }

    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        elementwise::binary(op, a, b)
    }

    fn scale_by(&self, x: &Tensor, factor: f32, scalar: &Tensor) -> Tensor {
        elementwise::unary(Unary::Scale(factor * scalar.f32s()[0]), x)
    }

    fn rows(&self, op: RowOp, x: &Tensor) -> Tensor {
        match op {
            RowOp::Softmax => rows::softmax(x),
            RowOp::Geglu => rows::geglu(x),
        }
    }

    fn rows_grad(&self, op: RowOp, saved: &Tensor, dy: &Tensor) -> Tensor {
        match op {
            RowOp::Softmax => rows::softmax_backward(saved, dy),
            RowOp::Geglu => rows::geglu_backward(saved, dy),
        }
    }

    fn sum(&self, x: &Tensor, over: Over) -> Tensor {
        match over {
            Over::All => reduce::sum_all(x),
            Over::Rows => elementwise::from_slice(&reduce::sum_groups(x, 1), &[x.last_dim()]),
            Over::ImageRows => {
                elementwise::from_slice(&reduce::sum_groups(x, x.dim(0)), &[x.dim(0), x.last_dim()])
            }
        }
    }

    fn moved(&self, op: Move, xs: &[&Tensor]) -> Tensor {
        let x = xs[0];
        match op {
            Move::Concat => layout::concat(xs),
            Move::Columns { start, len } => layout::columns(x, start, len),
            Move::PlaceColumns { start, width } => layout::uncolumns(x, start, width),
            Move::CatBatch => layout::cat_batch(xs),
            Move::SliceBatch { start, len } => layout::slice_batch(x, start, len),
            Move::PlaceBatch { start, batch } => layout::unslice_batch(x, start, batch),
            Move::Upsample => layout::upsample_nearest2x(x),
            Move::UpsampleGrad => layout::upsample_nearest2x_backward(x),
            Move::Canvas { height, width } => layout::resize_canvas(x, height, width),
            Move::TakeRows { ids } => layout::take_rows(x, ids),
            Move::AddRows { ids, rows } => layout::add_rows(x, ids, rows),
            Move::Repeat { shape } => layout::repeat(x, shape),
        }
    }

    fn linear(&self, x: &Tensor, w: Matrix, epilogue: &Epilogue) -> Tensor {
        products::linear(x, w, epilogue)
    }

    fn linear_dx(&self, dy: &Tensor, w: &Packed) -> Tensor {
        products::linear_dx(dy, w.elements())
    }

    fn linear_dw(&self, dy: &Tensor, x: &Tensor) -> Tensor {
        products::linear_dw(dy, x)
    }

    fn conv2d(&self, x: &Tensor, w: &Packed, shape: ConvShape, epilogue: &Epilogue) -> Tensor {
        products::conv2d(x, w.elements(), shape, epilogue)
    }

    fn conv2d_dx(&self, dy: &Tensor, w: &Packed, shape: ConvShape) -> Tensor {
        products::conv2d_dx(dy, w.elements(), shape)
    }

    fn conv2d_dw(&self, dy: &Tensor, x: &Tensor, shape: ConvShape) -> Tensor {
        products::conv2d_dw(dy, x, shape)
    }

    fn attention(&self, shape: HeadShape, qkv: [&Tensor; 3], mask: Mask) -> (Tensor, Tensor) {
        attention::forward(shape, qkv, mask)
    }

    fn attention_grad(&self, saved: &AttentionSaved, dy: &Tensor) -> [Tensor; 3] {
        attention_backward::backward(saved, dy)
    }

    fn window_attention(&self, args: &WindowArgs, qkv: [&Tensor; 3]) -> Tensor {
        window_attention::forward(args, qkv)
    }

    fn group_norm(&self, norm: GroupNormArgs, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
        group_norm::forward(norm, x, weight, bias)
    }

    fn group_norm_grad(
        &self,
        norm: GroupNormArgs,
        inputs: [&Tensor; 4],
        dy: &Tensor,
        with_dx: bool,
    ) -> (Option<Tensor>, [Tensor; 2]) {
        group_norm::backward(norm, inputs, dy, with_dx)
    }

    fn layer_norm(&self, eps: f32, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
        layer_norm::forward(x, weight, bias, eps)
    }

    fn layer_norm_grad(&self, x: &Tensor, weight: &Tensor, moments: &Tensor, dy: &Tensor) -> [Tensor; 3] {
        layer_norm::backward(x, weight, moments, dy)
    }

    fn pack(&self, bytes: &[u8], dtype: DType, [out, inp, taps]: [usize; 3], store: DType) -> Packed {
        Packed::new(pack::Packed::new(bytes, dtype, out, inp, taps, store), store)
    }

    fn pack_tensor(&self, w: &Tensor) -> Packed {
        let (out, inp) = (w.dim(0), w.dim(1));
        let taps = w.shape()[2..].iter().product();
        let bytes: &[u8] = match w.dtype() {
            DType::F32 => bytemuck::cast_slice(w.f32s()),
            _ => bytemuck::cast_slice(w.bf16s()),
        };
        self.pack(bytes, w.dtype(), [out, inp, taps], w.dtype())
    }

    fn unpack(&self, w: &Packed) -> Tensor {
        let w = w.elements::<pack::Packed>();
        Tensor::new(w.values(), &[w.out, w.inp, w.taps], DType::F32)
    }

    fn kept_zeros(&self, shape: &[usize]) -> Tensor {
        Tensor::new(Buffer::exact(DType::F32.bytes_of(shape)), shape, DType::F32)
    }

    fn write(&self, x: &mut Tensor, values: &[f32]) {
        x.f32s_mut().copy_from_slice(values);
    }

    fn sum_squares(&self, x: &Tensor) -> f64 {
        optim::squared_norm(x.f32s())
    }

    fn add_to(&self, sum: &mut Tensor, x: &Tensor) {
        optim::add_to(sum.f32s_mut(), x.f32s());
    }

    fn adamw(&self, args: &AdamWArgs, averages: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor {
        let factor = optim::adamw(args, averages.map(Tensor::f32s_mut), grad.f32s_mut());
        elementwise::full(&[], factor, DType::F32)
    }

    fn adafactor(&self, args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> Tensor {
        let factor = optim::adafactor(args, averages, grad);
        elementwise::full(&[], factor, DType::F32)
    }

    fn step(&self, p: &mut Tensor, keep: f32, factor: &Tensor, direction: &Tensor) {
        optim::step(p.f32s_mut(), keep, factor.f32s()[0], direction.f32s());
    }

    fn step_packed(&self, w: &mut Packed, keep: f32, factor: &Tensor, direction: &Tensor) {
        w.elements_mut::<pack::Packed>().step(keep, factor.f32s()[0], direction.f32s());
    }
}
