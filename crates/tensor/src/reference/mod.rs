//! A device of plain loops, for tests: what each kernel of the seam means, as short as it can be said. Numbers are summed in f64.

mod attention;
mod moves;
mod norms;
mod optim;
mod products;
mod tests;
mod training;
mod window_attention;

use half::{bf16, f16};

use crate::backend;
use crate::backend::{
    AdafactorArgs, AdafactorAverages, AdamWArgs, AttentionSaved, Backend, Binary, ConvShape, Epilogue,
    GroupNormArgs, HeadShape, Mask, Move, Over, RowOp, Unary, WindowArgs,
};
use crate::dtype::DType;
use crate::memory::Packed;
use crate::memory::Storage;
use crate::tensor::Tensor;

/// The device's kernels.
pub(crate) struct Reference;

/// A weight (out, in, taps): f32 numbers, rounded to what they are stored as.
pub(crate) struct Matrix {
    shape: [usize; 3],
    values: Vec<f32>,
}

/// A number as a dtype has it.
fn rounded(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => x,
        DType::BF16 => bf16::from_f32(x).to_f32(),
        DType::F16 => f16::from_f32(x).to_f32(),
    }
}

fn tensor(values: Vec<f64>, shape: &[usize], dtype: DType) -> Tensor {
    let values = values.into_iter().map(|x| rounded(x as f32, dtype)).collect();
    Tensor::new(Storage::Reference(values), shape, dtype)
}

/// The numbers of a tensor.
fn values(x: &Tensor) -> Vec<f64> {
    x.reference().iter().map(|x| f64::from(*x)).collect()
}

fn like(x: &Tensor, values: Vec<f64>) -> Tensor {
    tensor(values, x.shape(), x.dtype())
}

fn erf(x: f64) -> f64 {
    // The series where it converges fast, else Lentz's continued fraction of erfc.
    if x.abs() < 2.5 {
        let mut term = x;
        let mut sum = x;
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let a = x.abs();
    let fraction = (1..60).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
    (1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())).copysign(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Scale(factor) => x * f64::from(factor),
        Unary::Divide(divisor) => x / f64::from(divisor),
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Unary::QuickGelu => x * sigmoid(1.702 * x),
        Unary::Relu => x.max(0.0),
        Unary::LeakyRelu(slope) => x.max(0.0) + f64::from(slope) * x.min(0.0),
    }
}

fn derivative(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Scale(factor) => f64::from(factor),
        Unary::Divide(divisor) => 1.0 / f64::from(divisor),
        Unary::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Unary::Gelu => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * (1.0 + erf(x / 2f64.sqrt())) + x * density
        }
        Unary::QuickGelu => sigmoid(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigmoid(1.702 * x))),
        Unary::Relu => f64::from(u8::from(x > 0.0)),
        Unary::LeakyRelu(slope) => {
            if x > 0.0 {
                1.0
            } else {
                f64::from(slope)
            }
        }
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(*x));
    let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
    x.iter().map(|x| (x - max).exp() / sum).collect()
}

impl Backend for Reference {
    fn full(&self, shape: &[usize], value: f32, dtype: DType) -> Tensor {
        tensor(vec![f64::from(value); shape.iter().product()], shape, dtype)
    }

    fn upload(&self, values: &[f32], shape: &[usize], dtype: DType) -> Tensor {
        tensor(values.iter().map(|x| f64::from(*x)).collect(), shape, dtype)
    }

    fn download(&self, x: &Tensor) -> Vec<f32> {
        x.reference().to_vec()
    }

    fn convert(&self, x: &Tensor, dtype: DType) -> Tensor {
        tensor(values(x), x.shape(), dtype)
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Tensor {
        like(x, values(x).into_iter().map(|x| unary(op, x)).collect())
    }

    fn unary_grad(&self, op: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
        like(x, values(x).into_iter().zip(values(dy)).map(|(x, dy)| dy * derivative(op, x)).collect())
    }

    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
        let f = |(a, b): (f64, f64)| match op {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::AddScaled(factor) => a + f64::from(factor) * b,
        };
        like(a, values(a).into_iter().zip(values(b)).map(f).collect())
    }

    fn scale_by(&self, x: &Tensor, factor: f32, scalar: &Tensor) -> Tensor {
        let factor = f64::from(factor) * values(scalar)[0];
        like(x, values(x).into_iter().map(|x| x * factor).collect())
    }

    fn rows(&self, op: RowOp, x: &Tensor) -> Tensor {
        let width = x.last_dim().max(1);
        match op {
            RowOp::Softmax => like(x, values(x).chunks(width).flat_map(softmax).collect()),
            RowOp::Geglu => {
                let gated = |row: &[f64]| -> Vec<f64> {
                    let (value, gate) = row.split_at(row.len() / 2);
                    value.iter().zip(gate).map(|(value, gate)| value * unary(Unary::Gelu, *gate)).collect()
                };
                let mut shape = x.shape().to_vec();
                *shape.last_mut().expect("a row") /= 2;
                tensor(values(x).chunks(width).flat_map(gated).collect(), &shape, x.dtype())
            }
        }
    }

    fn rows_grad(&self, op: RowOp, saved: &Tensor, dy: &Tensor) -> Tensor {
        let (x, dy_values) = (values(saved), values(dy));
        let rows = x.chunks(saved.last_dim().max(1)).zip(dy_values.chunks(dy.last_dim().max(1)));
        let grad = |(x, dy): (&[f64], &[f64])| -> Vec<f64> {
            match op {
                RowOp::Softmax => {
                    let sum: f64 = x.iter().zip(dy).map(|(y, dy)| y * dy).sum();
                    x.iter().zip(dy).map(|(y, dy)| y * (dy - sum)).collect()
                }
                RowOp::Geglu => {
                    let (value, gate) = x.split_at(dy.len());
                    let dvalue = gate.iter().zip(dy).map(|(gate, dy)| dy * unary(Unary::Gelu, *gate));
                    let both = value.iter().zip(gate).zip(dy);
                    let dgate = both.map(|((value, gate), dy)| dy * value * derivative(Unary::Gelu, *gate));
                    dvalue.chain(dgate).collect()
                }
            }
        };
        like(saved, rows.flat_map(grad).collect())
    }

    fn sum(&self, x: &Tensor, over: Over) -> Tensor {
        if over == Over::All {
            return tensor(vec![values(x).iter().sum()], &[], DType::F32);
        }
        let (images, width) = (if over == Over::Rows { 1 } else { x.dim(0) }, x.last_dim());
        let mut sums = vec![0.0; images * width];
        let image = x.numel() / images.max(1);
        for (i, x) in values(x).into_iter().enumerate() {
            sums[i / image * width + i % width] += x;
        }
        let shape = if over == Over::Rows { vec![width] } else { vec![images, width] };
        tensor(sums, &shape, DType::F32)
    }

    fn moved(&self, op: Move, xs: &[&Tensor]) -> Tensor {
        moves::moved(op, xs)
    }

    fn linear(&self, x: &Tensor, w: backend::Matrix, epilogue: &Epilogue) -> Tensor {
        match w {
            backend::Matrix::Packed(w) => products::linear(x, w.elements(), epilogue),
            backend::Matrix::Stored(w) => {
                let packed = self.pack(w.bytes(), w.dtype, [w.out, w.inp, w.taps], w.dtype);
                products::linear(x, packed.elements(), epilogue)
            }
        }
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
        attention::backward(saved, dy)
    }

    fn window_attention(&self, args: &WindowArgs, qkv: [&Tensor; 3]) -> Tensor {
        window_attention::forward(args, qkv)
    }

    fn group_norm(&self, norm: GroupNormArgs, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
        norms::group_norm(norm, x, weight, bias)
    }

    fn group_norm_grad(
        &self,
        norm: GroupNormArgs,
        inputs: [&Tensor; 4],
        dy: &Tensor,
        with_dx: bool,
    ) -> (Option<Tensor>, [Tensor; 2]) {
        let [dx, dw, db] = norms::group_norm_grad(norm, inputs, dy);
        (with_dx.then_some(dx), [dw, db])
    }

    fn layer_norm(&self, eps: f32, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2] {
        let (rows, width) = (x.rows(), x.last_dim());
        let norm = GroupNormArgs { groups: 1, eps, silu: false };
        let [y, moments] = norms::group_norm(norm, &x.reshape(&[rows, width]), weight, bias);
        [y.reshape(x.shape()), moments.reshape(&[rows, 2])]
    }

    fn layer_norm_grad(&self, x: &Tensor, weight: &Tensor, moments: &Tensor, dy: &Tensor) -> [Tensor; 3] {
        let (rows, width) = (x.rows(), x.last_dim());
        let norm = GroupNormArgs { groups: 1, eps: 0.0, silu: false };
        let flat = |x: &Tensor| x.reshape(&[rows, width]);
        let [dx, dw, db] = norms::group_norm_grad(norm, [&flat(x), weight, weight, moments], &flat(dy));
        [dx.reshape(x.shape()), dw, db]
    }

    fn pack(&self, bytes: &[u8], dtype: DType, shape: [usize; 3], store: DType) -> Packed {
        let element = |bytes: &[u8]| match dtype {
            DType::F32 => f32::from_le_bytes(bytes.try_into().expect("four bytes")),
            DType::BF16 => bf16::from_le_bytes(bytes.try_into().expect("two bytes")).to_f32(),
            DType::F16 => f16::from_le_bytes(bytes.try_into().expect("two bytes")).to_f32(),
        };
        let values = bytes.chunks_exact(dtype.size()).map(|bytes| rounded(element(bytes), store)).collect();
        Packed::new(Matrix { shape, values }, store)
    }

    fn pack_tensor(&self, w: &Tensor) -> Packed {
        let shape = [w.dim(0), w.dim(1), w.shape()[2..].iter().product()];
        Packed::new(Matrix { shape, values: w.reference().to_vec() }, w.dtype())
    }

    fn unpack(&self, w: &Packed) -> Tensor {
        let w: &Matrix = w.elements();
        Tensor::new(Storage::Reference(w.values.clone()), &w.shape, DType::F32)
    }

    fn kept_zeros(&self, shape: &[usize]) -> Tensor {
        self.full(shape, 0.0, DType::F32)
    }

    fn write(&self, x: &mut Tensor, values: &[f32]) {
        *x = self.upload(values, x.shape(), DType::F32);
    }

    fn sum_squares(&self, x: &Tensor) -> f64 {
        values(x).iter().map(|x| x * x).sum()
    }

    fn add_to(&self, sum: &mut Tensor, x: &Tensor) {
        *sum = self.binary(Binary::Add, sum, x);
    }

    fn adamw(&self, args: &AdamWArgs, averages: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor {
        optim::adamw(args, averages, grad)
    }

    fn adafactor(&self, args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> Tensor {
        optim::adafactor(args, averages, grad)
    }

    fn step(&self, p: &mut Tensor, keep: f32, factor: &Tensor, direction: &Tensor) {
        let stepped = optim::step(&values(p), keep, factor, direction);
        *p = like(p, stepped);
    }

    fn step_packed(&self, w: &mut Packed, keep: f32, factor: &Tensor, direction: &Tensor) {
        let w: &mut Matrix = w.elements_mut();
        let values: Vec<f64> = w.values.iter().map(|w| f64::from(*w)).collect();
        w.values = optim::step(&values, keep, factor, direction).into_iter().map(|w| w as f32).collect();
    }
}
