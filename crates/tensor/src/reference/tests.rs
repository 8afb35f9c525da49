//! Each kernel of the CPU beside the reference's: through the ops, forward and back, in f32 and bf16, under each instruction set.
//! A tensor of the reference has no memory that others can read, so these tests protect the seam as well.

use super::training::Bytes;
use crate::common::cases::{Case, batches, cases, forward_only, run};
use crate::common::close;
use crate::dtype::DType;
use crate::memory::Device;
use crate::ops::{self, LinearArgs};
use crate::tensor::Tensor;
use crate::weight::Weight;

/// That the CPU gives what the reference gives, of the largest number in each result.
fn compare(case: &Case, dtype: DType) {
    compare_results(case, dtype, |inputs| {
        let (y, gradients) = run(case, inputs);
        [vec![y], gradients].concat()
    });
}

/// The same of the results that `run` makes of the case's inputs.
fn compare_results(case: &Case, dtype: DType, run: impl Fn(&[Tensor]) -> Vec<Tensor>) {
    let on = |device: Device| {
        let inputs: Vec<Tensor> = case.inputs.iter().map(|x| x.to_dtype(dtype).to_device(device)).collect();
        run(&inputs)
    };
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 2e-2 };
    let want = on(Device::Reference);
    for (i, (found, want)) in on(Device::Cpu).iter().zip(&want).enumerate() {
        assert_eq!(found.dtype(), want.dtype(), "{} {dtype}, result {i}", case.name);
        close(&format!("{} {dtype}, result {i} (y, then gradients)", case.name), found, want, tolerance);
    }
}

/// Every op, at sizes that one task does alone and at sizes that several share.
#[test]
fn every_kernel_beside_the_reference() {
    for case in cases(false).iter().chain(&cases(true)) {
        for dtype in [DType::F32, DType::BF16] {
            compare(case, dtype);
        }
    }
    batches().iter().for_each(|case| compare(case, DType::F32));
    for case in forward_only() {
        for dtype in [DType::F32, DType::BF16] {
            compare_results(&case, dtype, |inputs| vec![(case.f)(inputs)]);
        }
    }
}

/// Protects networks on a second device: what a constructor is to make there computes there.
#[test]
fn constructors_take_a_device() {
    let (device, shape) = (Device::Reference, [2, 3, 1, 1]);
    let values: Vec<f32> = (1..7).map(|i| i as f32).collect();
    let bytes = || bytemuck::cast_slice::<f32, u8>(&values).to_vec();
    let weights = [
        Weight::new(&bytes(), DType::F32, shape, DType::F32, device),
        Weight::lazy(Box::new(Bytes(bytes())), DType::F32, shape, DType::F32, device),
        Weight::streamed(Box::new(Bytes(bytes())), DType::F32, [2, 3], device),
        Weight::from_tensor(&device.upload(&values, &shape)),
    ];
    let bias = device.full(&[2], 0.5, DType::F32);
    let residual = device.zeros(&[1, 2], DType::F32);
    let args = LinearArgs { bias: Some(&bias), residual: Some(&residual), ..LinearArgs::default() };
    for weight in weights {
        assert_eq!(weight.device(), device);
        let y = ops::linear(&device.upload(&[1.0, 0.0, 2.0], &[1, 3]), &weight, args);
        assert_eq!(y.reference(), [7.5, 16.5]);
    }
    assert_eq!(ops::timestep_embedding(&[0.0], 3, true, 0.0, device).reference(), [1.0, 0.0, 0.0]);
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    crate::common::rerun_for_every_isa_of("reference::tests::every_kernel_beside_the_reference");
}
