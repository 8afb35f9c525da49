//! Two ways through one computation give the same bytes, with every instruction set: whatever the number of threads,
//! whatever else is in the batch, whether a gradient is asked for, whether blocks are kept or computed again, and in
//! whatever dtype a weight is stored.

mod common;

use calotype_tensor::ops::{self, Activation, Conv, ConvArgs, LinearArgs, Padding};
use calotype_tensor::{DType, Device, Tensor, Weight, checkpoint};
use common::cases::{Case, batches, cases, forward_only, gradients_of, run};
use common::noise;

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec().iter().map(|x| x.to_bits()).collect()
}

fn all_bits(tensors: &[Tensor]) -> Vec<Vec<u32>> {
    tensors.iter().map(bits).collect()
}

fn as_dtype(inputs: &[Tensor], dtype: DType) -> Vec<Tensor> {
    inputs.iter().map(|x| x.to_dtype(dtype)).collect()
}

fn vars(inputs: &[Tensor]) -> Vec<Tensor> {
    inputs.iter().map(|x| x.clone().var()).collect()
}

/// The bytes of y and of all gradients do not depend on the number of threads, in f32 and bf16.
#[test]
fn threads_do_not_matter() {
    for case in cases(true) {
        for dtype in DTYPES {
            let inputs = as_dtype(&case.inputs, dtype);
            let run_with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (y, gradients) = pool.install(|| run(&case, &inputs));
                (bits(&y), all_bits(&gradients))
            };
            let one = run_with(1);
            for threads in [2, 3] {
                let several = run_with(threads);
                assert!(several.0 == one.0, "{} {dtype}: y with {threads} threads", case.name);
                for (i, (a, b)) in several.1.iter().zip(&one.1).enumerate() {
                    assert!(a == b, "{} {dtype}: gradient {i} with {threads} threads", case.name);
                }
            }
        }
    }
}

/// The same of ops that have no way back, and each image of a batch is computed as it is alone.
#[test]
fn neither_threads_nor_batches_matter_without_gradients() {
    for case in forward_only() {
        for dtype in DTYPES {
            let inputs = as_dtype(&case.inputs, dtype);
            let y = (case.f)(&inputs);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            assert!(pool.install(|| bits(&(case.f)(&inputs))) == bits(&y), "{} {dtype}: threads", case.name);
            let last = |x: &Tensor| ops::slice_batch(x, x.dim(0) - 1, 1);
            let alone = (case.f)(&inputs.iter().map(last).collect::<Vec<_>>());
            assert!(bits(&last(&y)) == bits(&alone), "{} {dtype}: the last image", case.name);
        }
    }
}

/// Each image of a batch is computed as it is alone, forward and back, in f32 and bf16: y, and the gradients of all inputs that
/// have a batch themselves. The other inputs are shared, and their gradients are sums over the batch.
#[test]
fn a_batch_is_its_images() {
    // What a network does to (B, H, W, C) and (B, T, C).
    let batched = ["group_norm", "layer_norm", "linear", "conv", "attention", "upsample", "crop", "silu"];
    let with_batch = |case: &Case| batched.iter().any(|name| case.name.starts_with(name));
    for case in cases(true).into_iter().chain(batches()).filter(with_batch) {
        for dtype in DTYPES {
            let inputs = vars(&as_dtype(&case.inputs, dtype));
            let batch = inputs[0].dim(0);
            let is_batched = |x: &Tensor| x.shape().len() > 1 && x.dim(0) == batch;
            let together = (case.f)(&inputs);
            let dy = noise(together.shape(), 77).to_dtype(dtype);
            let gradients = gradients_of(&case.name, &together, dy.clone(), &inputs);
            for image in [0, batch - 1] {
                let one = |x: &Tensor| ops::slice_batch(&x.detach(), image, 1);
                let alone: Vec<Tensor> =
                    inputs.iter().map(|x| if is_batched(x) { one(x).var() } else { x.clone() }).collect();
                let y = (case.f)(&alone);
                assert!(bits(&one(&together)) == bits(&y), "{} {dtype}: image {image}", case.name);
                let of_alone = gradients_of(&case.name, &y, one(&dy), &alone);
                for (i, (all, alone)) in gradients.iter().zip(&of_alone).enumerate() {
                    let same = !is_batched(&inputs[i]) || bits(&one(all)) == bits(alone);
                    assert!(same, "{} {dtype}: gradient {i} of image {image}", case.name);
                }
            }
        }
    }
}

/// y does not depend on which of the inputs a gradient is asked for, if any. An activation after a product is fused with it where none
/// is, and an op of its own where one is.
#[test]
fn a_gradient_changes_nothing() {
    for case in cases(false).into_iter().chain(cases(true)) {
        for dtype in DTYPES {
            let inputs = as_dtype(&case.inputs, dtype);
            let plain = bits(&(case.f)(&inputs));
            assert!(bits(&(case.f)(&vars(&inputs))) == plain, "{} {dtype}: of all inputs", case.name);
            for i in 0..inputs.len() {
                let mut inputs = inputs.clone();
                inputs[i] = inputs[i].clone().var();
                assert!(bits(&(case.f)(&inputs)) == plain, "{} {dtype}: of input {i}", case.name);
            }
        }
    }
}

/// What is computed again on the way back gives the gradients of what was kept.
#[test]
fn recomputed_is_kept() {
    for case in cases(true) {
        for dtype in DTYPES {
            let inputs = vars(&as_dtype(&case.inputs, dtype));
            let forks: Vec<Tensor> = inputs.iter().map(Tensor::fork).collect();
            let kept = (case.f)(&forks);
            let f = case.f.clone();
            let again = checkpoint(move |x| f(x), &inputs);
            assert!(bits(&kept) == bits(&again), "{} {dtype}", case.name);
            let dy = noise(kept.shape(), 77).to_dtype(kept.dtype());
            let [kept, again] =
                [kept, again].map(|y| all_bits(&gradients_of(&case.name, &y, dy.clone(), &inputs)));
            assert!(kept == again, "{} {dtype}: gradients", case.name);
        }
    }
}

/// y and dx of a frozen layer, for a gradient of y that is the same each time.
fn with_dx(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> [Vec<u32>; 2] {
    let x = x.clone().var();
    let y = f(&x);
    let dy = noise(y.shape(), 77).to_dtype(y.dtype());
    let dx = gradients_of("x", &y, dy, std::slice::from_ref(&x));
    [bits(&y), bits(&dx[0])]
}

/// Values that all dtypes have, stored in one of them.
fn stored(shape: [usize; 4], store: DType) -> Weight {
    let values = noise(&shape, 2).to_dtype(DType::BF16).to_vec();
    let bytes: Vec<u8> = values.iter().flat_map(|x| ((x * 128.0).round() / 128.0).to_le_bytes()).collect();
    Weight::new(&bytes, DType::F32, shape, store, Device::Cpu)
}

/// A row of a product is what it is alone: few rows and many, rows whole pages apart, which are copied, and rows that are not,
/// for weights in each dtype. Alone it has other tiles, other blocks, and another place in memory.
#[test]
fn rows_are_what_they_are_alone() {
    let (rows, n) = (301, 45);
    for k in [40, 333, 1024, 2048] {
        for (dtype, store) in
            DTYPES.iter().flat_map(|d| [DType::F32, DType::F16, DType::BF16].map(|s| (*d, s)))
        {
            let x = noise(&[rows, k], 1).to_dtype(dtype);
            let weight = stored([n, k, 1, 1], store);
            let product = |x: &Tensor| {
                ops::linear(x, &weight, LinearArgs { act: Activation::Gelu, ..LinearArgs::default() })
            };
            let all = product(&x);
            for (first, count) in [(0, 1), (rows - 1, 1), (100, 14)] {
                let alone = product(&ops::slice_batch(&x, first, count));
                let same = bits(&ops::slice_batch(&all, first, count)) == bits(&alone);
                assert!(same, "{count} rows of {k}, {dtype} times {store}");
            }
        }
    }
}

/// The dtype in which a weight is stored does not matter, as long as the dtype has its values, to products that are computed in f32:
/// all of f32 activations, and of bf16 ones those with weights that are not bf16.
#[test]
fn stores_do_not_matter() {
    let conv = |stride, padding| Conv { stride, padding };
    for dtype in DTYPES {
        let stores = [DType::F16, DType::BF16];
        let stores = if dtype == DType::F32 { &stores[..] } else { &stores[..1] };
        for store in stores {
            for k in [24, 333] {
                let x = noise(&[37, k], 1).to_dtype(dtype);
                let [want, found] = [DType::F32, *store].map(|store| {
                    let w = stored([45, k, 1, 1], store);
                    with_dx(&x, |x| ops::linear(x, &w, LinearArgs::default()))
                });
                assert!(want == found, "linear of {k}, {dtype} times {store}");
            }
            let convs = [conv(1, Padding::Same), conv(2, Padding::Same), conv(2, Padding::BottomRight)];
            // By Winograd's algorithm, and with too few channels or tiles for it.
            for (conv, [side, inp]) in
                convs.iter().flat_map(|c| [[17, 35], [17, 7], [9, 35]].map(|s| (*c, s)))
            {
                let x = noise(&[2, side, side + 1, inp], 1).to_dtype(dtype);
                let [want, found] = [DType::F32, *store].map(|store| {
                    let w = stored([37, inp, 3, 3], store);
                    with_dx(&x, |x| ops::conv2d(x, &w, conv, ConvArgs::default()))
                });
                assert!(want == found, "{conv:?} of {side}, {inp}, {dtype} times {store}");
            }
        }
    }
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
