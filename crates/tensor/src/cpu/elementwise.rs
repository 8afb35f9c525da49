//! Kernels that treat each element alone.

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Buffer;
use super::isa::{isa, simd_fn};
use super::math::{self, Element};
use crate::backend::{Binary, Unary};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// Elements that one task takes: enough to be worth a task, few enough to share out.
const GRAIN: usize = 1 << 14;

/// Runs `$body` with `$T` standing for the element type of a dtype: `with_element!(x.dtype(), T => f::<T>(x))` stands for
/// ```ignore
/// match x.dtype() {
///     DType::F32 => { type T = f32; f::<T>(x) }
///     DType::BF16 => { type T = bf16; f::<T>(x) }
///     DType::F16 => panic!(..),
/// }
/// ```
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::F16 => panic!("activations are f32 or bf16"),
        }
    };
}
pub(crate) use with_element;

simd_fn! {
    fn map_slice<X: Element, Y: Element, F: Fn(f32) -> f32>(x: &[X], y: &mut [Y], f: &F) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = Y::from_f32(f(x.to_f32()));
        }
    }
}

simd_fn! {
    fn zip_slice<T: Element, F: Fn(f32, f32) -> f32>(a: &[T], b: &[T], y: &mut [T], f: &F) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = T::from_f32(f(a.to_f32(), b.to_f32()));
        }
    }
}

/// A tensor of one number.
pub(super) fn full(shape: &[usize], value: f32, dtype: DType) -> Tensor {
    let mut buffer = Buffer::uninit(dtype.bytes_of(shape));
    with_element!(dtype, T => buffer.as_mut_slice::<T>().fill(T::from_f32(value)));
    Tensor::new(buffer, shape, dtype)
}

/// An f32 tensor of these values.
pub(super) fn from_slice(values: &[f32], shape: &[usize]) -> Tensor {
    let mut buffer = Buffer::uninit(size_of_val(values));
    buffer.as_mut_slice::<f32>().copy_from_slice(values);
    Tensor::new(buffer, shape, DType::F32)
}

/// All elements, widened.
pub(super) fn to_vec(x: &Tensor) -> Vec<f32> {
    match x.dtype() {
        DType::F32 => x.f32s().to_vec(),
        _ => x.bf16s().to_f32_vec(),
    }
}

/// `op` of every element.
pub(super) fn unary(op: Unary, x: &Tensor) -> Tensor {
    match op {
        Unary::Scale(factor) => map(x, |x| x * factor),
        Unary::Divide(divisor) => map(x, |x| x / divisor),
        Unary::Silu => map(x, math::silu),
        Unary::Gelu => map(x, math::gelu),
        Unary::QuickGelu => map(x, math::quick_gelu),
        Unary::Relu => map(x, math::relu),
        Unary::LeakyRelu(slope) => map(x, |x| if x < 0.0 { slope * x } else { x }),
    }
}

/// dy · op'(x).
pub(super) fn unary_grad(op: Unary, x: &Tensor, dy: &Tensor) -> Tensor {
    match op {
        Unary::Silu => zip(x, dy, |x, dy| dy * math::silu_grad(x)),
        Unary::Gelu => zip(x, dy, |x, dy| dy * math::gelu_grad(x)),
        Unary::QuickGelu => zip(x, dy, |x, dy| dy * math::quick_gelu_grad(x)),
        Unary::Relu => zip(x, dy, |x, dy| if x <= 0.0 { 0.0 } else { dy }),
        Unary::LeakyRelu(slope) => zip(x, dy, |x, dy| if x <= 0.0 { slope * dy } else { dy }),
        Unary::Scale(_) | Unary::Divide(_) => unary(op, dy),
    }
}

/// `op` of every pair of elements.
pub(super) fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    match op {
        Binary::Add => zip(a, b, |a, b| a + b),
        Binary::Subtract => zip(a, b, |a, b| a - b),
        Binary::Multiply => zip(a, b, |a, b| a * b),
        Binary::AddScaled(factor) => zip(a, b, |a, b| a + factor * b),
    }
}

/// `f` of every element.
fn map(x: &Tensor, f: impl Fn(f32) -> f32 + Sync) -> Tensor {
    with_element!(x.dtype(), T => map_as::<T, T>(x, f))
}

fn map_as<X: Element, Y: Element>(x: &Tensor, f: impl Fn(f32) -> f32 + Sync) -> Tensor {
    let mut out = Buffer::uninit(x.numel() * size_of::<Y>());
    let chunks = out.as_mut_slice::<Y>().par_chunks_mut(GRAIN);
    chunks.zip(x.elements::<X>().par_chunks(GRAIN)).for_each(|(y, x)| map_slice(isa(), x, y, &f));
    Tensor::new(out, x.shape(), Y::DTYPE)
}

/// `f` of every pair of elements of two tensors of one shape and dtype.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Tensor {
    assert_eq!(a.shape(), b.shape());
    assert_eq!(a.dtype(), b.dtype());
    let mut out = Buffer::uninit(a.numel() * a.dtype().size());
    with_element!(a.dtype(), T => {
        let chunks = out.as_mut_slice::<T>().par_chunks_mut(GRAIN);
        let inputs = a.elements::<T>().par_chunks(GRAIN).zip(b.elements::<T>().par_chunks(GRAIN));
        chunks.zip(inputs).for_each(|(y, (a, b))| zip_slice(isa(), a, b, y, &f));
    });
    Tensor::new(out, a.shape(), a.dtype())
}

/// Rounds to another dtype.
pub(super) fn convert(x: &Tensor, dtype: DType) -> Tensor {
    with_element!(x.dtype(), X => with_element!(dtype, Y => map_as::<X, Y>(x, |x| x)))
}
