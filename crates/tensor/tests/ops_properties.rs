//! What holds for every op: its gradients are those of its forward, and bf16 is f32 rounded.

mod common;

use calotype_tensor::{DType, Tensor};
use common::cases::{cases, run};
use common::noise;

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.to_vec().iter().zip(b.to_vec()).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
}

fn step(x: &Tensor, h: f32, direction: &Tensor) -> Tensor {
    let moved = x.f32s().iter().zip(direction.f32s()).map(|(x, d)| x + h * d);
    Tensor::from_vec(moved.collect(), x.shape())
}

/// Along random directions, the change of a random projection of y is what the gradients say; at sizes
/// that one task does alone, and at sizes where several tasks must join their parts.
#[test]
fn gradients_are_finite_differences() {
    const H: f32 = 4e-3;
    // ReLU has no derivative at 0, which some of the steps cross. Its gradients are proven by golden files alone.
    let smooth = cases(false).into_iter().chain(cases(true)).filter(|case| !case.name.contains("relu"));
    for case in smooth {
        let (y, gradients) = run(&case, &case.inputs);
        let projection = noise(y.shape(), 77).to_dtype(DType::BF16).to_dtype(DType::F32);
        for (i, gradient) in gradients.iter().enumerate() {
            for seed in 0..4 {
                let direction = noise(gradient.shape(), 1000 + seed);
                let moved = |h: f32| {
                    let mut inputs = case.inputs.clone();
                    inputs[i] = step(&inputs[i], h, &direction);
                    dot(&(case.f)(&inputs), &projection)
                };
                let found = dot(gradient, &direction);
                let want = (moved(H) - moved(-H)) / f64::from(2.0 * H);
                let error = (found - want).abs() / dot(gradient, gradient).sqrt().max(1e-2);
                assert!(error < 1e-2, "{}, input {i}: {found}, expected {want}", case.name);
            }
        }
    }
}

/// With bf16 activations, y and all gradients are those of f32 within bf16's precision, whether the
/// parameters of one dimension (norms, biases) are bf16 too or f32. Each gradient has its input's dtype.
#[test]
fn bf16_is_f32_rounded() {
    for case in cases(false) {
        let rounded: Vec<Tensor> = case.inputs.iter().map(|x| x.to_dtype(DType::BF16)).collect();
        let exact: Vec<Tensor> = rounded.iter().map(|x| x.to_dtype(DType::F32)).collect();
        let (want, want_gradients) = run(&case, &exact);
        for f32_parameters in [false, true] {
            let keep = |i: usize| f32_parameters && i > 0 && exact[i].shape().len() == 1;
            let inputs: Vec<Tensor> =
                (0..exact.len()).map(|i| if keep(i) { &exact[i] } else { &rounded[i] }.clone()).collect();
            let (y, gradients) = run(&case, &inputs);
            let scalar = y.shape().is_empty();
            assert_eq!(y.dtype(), if scalar { DType::F32 } else { DType::BF16 }, "{}", case.name);
            common::close(&format!("{}.y", case.name), &y, &want, if scalar { 1e-5 } else { 1e-2 });
            for (i, (gradient, want)) in gradients.iter().zip(&want_gradients).enumerate() {
                assert_eq!(gradient.dtype(), inputs[i].dtype(), "{}, gradient {i}", case.name);
                common::close(&format!("{}, gradient {i}", case.name), gradient, want, 2e-2);
            }
        }
    }
}

/// All of the above with every instruction set of this CPU, so that the portable fallback is tested too.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
