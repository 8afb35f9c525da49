//! The meta device: tensors with a shape and a dtype and without numbers, as PyTorch's `meta` device has them. Its kernels
//! compute nothing, and count the work that the CPU's kernels would do and the memory that their results would take.
//!
//! ```
//! use calotype_tensor::{DType, Tensor, Weight, meta, ops};
//!
//! let x = Tensor::meta(&[2, 256, 256, 320], DType::F32);
//! let w = Weight::meta([320, 320, 3, 3], DType::F32);
//! let same = ops::Conv { stride: 1, padding: ops::Padding::Same };
//! let (y, counted) = meta::count(|| ops::conv2d(&x, &w, same, ops::ConvArgs::default()));
//! assert_eq!(y.shape(), [2, 256, 256, 320]);
//! assert_eq!(counted.work.flops(), 2.0 * (2 * 256 * 256) as f64 * (320 * 320 * 9) as f64);
//! assert_eq!(counted.peak_bytes, 2 * 256 * 256 * 320 * 4);
//! ```

mod kernels;
mod work;

pub(crate) use kernels::Meta;
pub use work::{NARROW, Work, WorkKind};

use crate::dtype::DType;
use crate::memory::{MetaMemory, Storage, peak_bytes};
use crate::tensor::Tensor;

/// What a computation on the meta device would take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// The work of all kernels.
    pub work: Work,
    /// The most memory that tensors take at once, in addition to that of tensors from before, in bytes. What a tape keeps
    /// counts, the scratch memory inside of a kernel does not.
    pub peak_bytes: usize,
}

/// The result of `f`, and what its tensors on the meta device take. Only what this thread computes counts.
pub fn count<R>(f: impl FnOnce() -> R) -> (R, Counted) {
    let ((result, peak_bytes), work) = work::counted(|| peak_bytes(f));
    (result, Counted { work, peak_bytes })
}

impl Tensor {
    /// A tensor without numbers, on [`Device::Meta`](crate::Device::Meta). [`Tensor::to_vec`] gives zeros.
    ///
    /// # Panics
    /// If the dtype is f16, or usize cannot hold the number of bytes.
    pub fn meta(shape: &[usize], dtype: DType) -> Tensor {
        Tensor::new(Storage::Meta(MetaMemory::new(dtype.bytes_of(shape))), shape, dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::cases::{batches, cases, forward_only, run};
    use crate::memory::Device;

    /// Protects the device: each op gives the shapes and dtypes that the CPU gives, forward and back.
    #[test]
    fn results_have_the_shapes_of_the_cpu() {
        for case in cases(false).iter().chain(&batches()) {
            for dtype in [DType::F32, DType::BF16] {
                let on = |device: Device| {
                    let inputs: Vec<Tensor> =
                        case.inputs.iter().map(|x| x.to_dtype(dtype).to_device(device)).collect();
                    let (y, gradients) = run(case, &inputs);
                    [vec![y], gradients].concat()
                };
                let (found, want) = (on(Device::Meta), on(Device::Cpu));
                assert_eq!(found.len(), want.len(), "{} {dtype}", case.name);
                for (i, (found, want)) in found.iter().zip(&want).enumerate() {
                    let of = |x: &Tensor| (x.shape().to_vec(), x.dtype());
                    assert_eq!(of(found), of(want), "{} {dtype}, result {i} (y, then gradients)", case.name);
                }
            }
        }
    }

    /// The same of ops that have no way back.
    #[test]
    fn results_without_gradients_have_the_shapes_of_the_cpu() {
        for case in forward_only() {
            for dtype in [DType::F32, DType::BF16] {
                let on = |device: Device| {
                    let inputs = case.inputs.iter().map(|x| x.to_dtype(dtype).to_device(device));
                    let y = (case.f)(&inputs.collect::<Vec<Tensor>>());
                    (y.shape().to_vec(), y.dtype())
                };
                assert_eq!(on(Device::Meta), on(Device::Cpu), "{} {dtype}", case.name);
            }
        }
    }

    /// Protects the memory that is counted: what is freed can be used again, what a tape keeps cannot, and counts may be nested.
    #[test]
    fn memory_that_is_alive_counts() {
        use crate::ops::{mul, scale};
        let x = Tensor::meta(&[10], DType::F32);
        let (_, freed) = count(|| (0..9).fold(x.clone(), |x, _| scale(&x, 2.0)));
        assert_eq!(freed.peak_bytes, 80, "an input and an output");
        let var = x.clone().var();
        let (kept, outer) = count(|| {
            drop(Tensor::meta(&[100], DType::F32));
            let (y, inner) = count(|| mul(&scale(&mul(&var, &var), 2.0), &var));
            assert_eq!(inner.peak_bytes, 120, "three products, of which the tape keeps two");
            y
        });
        assert_eq!(outer.peak_bytes, 400);
        assert_eq!(outer.work.of(WorkKind::Calls), 3.0);
        drop(kept);
    }
}
