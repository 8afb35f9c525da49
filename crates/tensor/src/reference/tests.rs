//! Each kernel of the CPU beside the reference's: through the ops, forward and back, in f32 and bf16, under each instruction set.
//! A tensor of the reference has no memory that others can read, so these tests protect the seam as well.

use crate::common::cases::{Case, batches, cases, run};
use crate::common::close;
use crate::dtype::DType;
use crate::memory::Device;
use crate::tensor::Tensor;

/// That the CPU gives what the reference gives, of the largest number in each result.
fn compare(case: &Case, dtype: DType) {
    let on = |device: Device| {
        let inputs: Vec<Tensor> = case.inputs.iter().map(|x| x.to_dtype(dtype).to_device(device)).collect();
        let (y, gradients) = run(case, &inputs);
        [vec![y], gradients].concat()
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
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    crate::common::rerun_for_every_isa_of("reference::tests::every_kernel_beside_the_reference");
}
