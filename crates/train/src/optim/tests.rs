//! The optimizers compared with torch and transformers, and with themselves on other numbers of threads.

use std::collections::HashMap;

use calotype_tensor::rng::TorchCpu;
use calotype_tensor::{DType, ops};
use safetensors::SafeTensors;
use serde_json::Value;

use super::*;

/// The content of the optimizers' golden file.
struct Golden {
    bytes: Vec<u8>,
    arguments: HashMap<String, String>,
}

/// A parameter's gradients, and its values initially and after each step.
struct Trajectory {
    shape: Vec<usize>,
    grads: Vec<f32>,
    params: Vec<f32>,
}

impl Golden {
    fn load() -> Golden {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../sdxl/tests/golden/training/optimizers.safetensors");
        let bytes = std::fs::read(path).expect("golden file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden file");
        let arguments = header.metadata().clone().expect("golden metadata").into_iter().collect();
        Golden { bytes, arguments }
    }

    fn argument(&self, optimizer: &str, name: &str) -> f64 {
        let arguments: Value = serde_json::from_str(&self.arguments[optimizer]).expect("JSON");
        arguments[name].as_f64().expect(name)
    }

    fn trajectories(&self, optimizer: &str) -> Vec<Trajectory> {
        let file = SafeTensors::deserialize(&self.bytes).expect("golden file");
        let floats = |name: &str| {
            let tensor = file.tensor(name).ok()?;
            let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Some((tensor.shape()[1..].to_vec(), values.collect()))
        };
        let read = |i: usize| {
            let (shape, grads) = floats(&format!("{optimizer}.{i}.grads"))?;
            let (_, params) = floats(&format!("{optimizer}.{i}.params"))?;
            Some(Trajectory { shape, grads, params })
        };
        (0..).map_while(read).collect()
    }
}

/// Protects each step of each optimizer: decay, bias correction, ε, zero gradients, factorization of matrices and
/// convolutions, clipping.
#[test]
fn trajectories_are_the_references() {
    let golden = Golden::load();
    for optimizer in ALL {
        let name = optimizer.name();
        let (lr, decay) = (golden.argument(name, "lr"), golden.argument(name, "weight_decay"));
        let trajectories = golden.trajectories(name);
        assert_eq!(trajectories.len(), 6, "{name}");
        for (i, Trajectory { shape, grads, params }) in trajectories.into_iter().enumerate() {
            let size = shape.iter().product();
            let (start, after) = params.split_at(size);
            let mut p = Tensor::from_slice(start, &shape);
            let mut state = optimizer.state(&shape, Device::Cpu);
            let mut worst = 0.0_f32;
            for (grad, golden) in grads.chunks_exact(size).zip(after.chunks_exact(size)) {
                let mut direction = Tensor::from_slice(grad, &shape);
                let factor = optimizer.step(&mut state, &mut direction, lr);
                ops::step(&mut p, (1.0 - lr * decay) as f32, &factor, &direction);
                let scale = golden.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
                let off = p.f32s().iter().zip(golden).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
                worst = worst.max(off / scale);
            }
            assert!(worst <= 1e-6, "{name}, tensor {i}: differs by {worst:e} of the largest value");
            assert_eq!(state.step, 12);
        }
    }
}

fn on_threads<T: Send>(threads: usize, run: impl Fn() -> T + Send + Sync) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(run)
}

/// Protects the rule that the same input gives the same bytes: steps, states and norms on one thread and on three, for tensors
/// with several tasks along each axis.
#[test]
fn threads_change_nothing() {
    for optimizer in ALL {
        for shape in [&[50_001][..], &[301, 333], &[3, 20_000], &[20_000, 3], &[150, 40, 3, 3], &[2, 90, 101]]
        {
            let run = || {
                let (mut rng, mut state) = (TorchCpu::new(1), optimizer.state(shape, Device::Cpu));
                let mut p = Tensor::zeros(shape, DType::F32);
                let norms = (0..3).map(|_| {
                    let mut grad = Tensor::from_vec(rng.randn(shape.iter().product()), shape);
                    let norm = ops::sum_squares(&grad);
                    let factor = optimizer.step(&mut state, &mut grad, 0.1);
                    ops::step(&mut p, 0.9, &factor, &grad);
                    norm.to_bits()
                });
                let norms: Vec<u64> = norms.collect();
                let averages: Vec<Vec<f32>> = state.tensors.iter().map(|(_, x)| x.to_vec()).collect();
                (norms, p.to_vec(), averages)
            };
            assert!(on_threads(1, run) == on_threads(3, run), "{}, {shape:?}", optimizer.name());
        }
    }
}

/// Protects large tensors at the boundaries of blocks of rows and columns: Adafactor's averages against plain sums.
#[test]
fn adafactor_averages_rows_and_columns() {
    let shape = [3, 70, 131];
    let (grad, mut state) = (TorchCpu::new(2).randn(3 * 70 * 131), Adafactor.state(&shape, Device::Cpu));
    Adafactor.step(&mut state, &mut Tensor::from_slice(&grad, &shape), 0.1);
    let square = |m: usize, r: usize, c: usize| f64::from(grad[(m * 70 + r) * 131 + c]).powi(2);
    let [("exp_avg_sq_row", row), ("exp_avg_sq_col", col)] = state.tensors.as_slice() else {
        panic!("{:?}", state.tensors)
    };
    assert_eq!((row.shape(), col.shape()), (&[3, 70][..], &[3, 131][..]));
    let (row, col) = (row.f32s(), col.f32s());
    for m in 0..3 {
        for r in 0..70 {
            let mean = (0..131).map(|c| square(m, r, c)).sum::<f64>() / 131.0;
            assert!((f64::from(row[m * 70 + r]) - mean).abs() < 1e-6 * mean, "row {r} of {m}");
        }
        for c in 0..131 {
            let mean = (0..70).map(|r| square(m, r, c)).sum::<f64>() / 70.0;
            assert!((f64::from(col[m * 131 + c]) - mean).abs() < 1e-6 * mean, "column {c} of {m}");
        }
    }
}

/// Protects parameters whose gradient is zero: a step of 0, not 0/0.
#[test]
fn zero_gradients_make_no_step() {
    for optimizer in ALL {
        for shape in [&[5][..], &[4, 3], &[2, 3, 1, 1], &[]] {
            let (mut state, mut grad) =
                (optimizer.state(shape, Device::Cpu), Tensor::zeros(shape, DType::F32));
            let factor = optimizer.step(&mut state, &mut grad, 0.1);
            assert!(
                factor.f32s()[0].is_finite() && grad.f32s().iter().all(|step| *step == 0.0),
                "{}, {shape:?}: {grad:?}",
                optimizer.name()
            );
        }
    }
}

/// Protects clipping: only a norm above the maximum is reduced, and a NaN norm does not count as small.
#[test]
fn clipping() {
    assert_eq!(clip_factor(0.0, 1.0), 1.0);
    assert_eq!(clip_factor(0.5, 1.0), 1.0);
    assert_eq!(clip_factor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
    assert_eq!(clip_factor(4.0, f64::INFINITY), 1.0);
    assert!(clip_factor(f64::NAN, 1.0).is_nan());
}

/// Protects the names in requests, and the error for others.
#[test]
fn names() {
    assert_eq!(find("adamw").expect("adamw").name(), "adamw");
    assert_eq!(find("adafactor").expect("adafactor").name(), "adafactor");
    let error = find("sgd").err().expect("no such optimizer").to_string();
    assert_eq!(error, r#"optimizer: expected one of adamw, adafactor, found "sgd""#);
}
