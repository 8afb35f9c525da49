//! The optimizers compared with torch and transformers, and with themselves on other numbers of threads.

use std::collections::HashMap;

use calotype_tensor::rng::TorchCpu;
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
            let (mut p, mut state) = (start.to_vec(), optimizer.state(&shape));
            let mut worst = 0.0_f32;
            for (grad, golden) in grads.chunks_exact(size).zip(after.chunks_exact(size)) {
                let mut step = grad.to_vec();
                let factor = optimizer.step(&mut state, &shape, &mut step, lr);
                for (p, d) in p.iter_mut().zip(&step) {
                    *p = *p * (1.0 - lr * decay) as f32 - factor * d;
                }
                let scale = golden.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
                let off = p.iter().zip(golden).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
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
                let (mut rng, mut state) = (TorchCpu::new(1), optimizer.state(shape));
                let steps = (0..3).map(|_| {
                    let mut grad = rng.randn(shape.iter().product());
                    let norm = squared_norm(&grad);
                    let factor = optimizer.step(&mut state, shape, &mut grad, 0.1);
                    (norm.to_bits(), factor, grad)
                });
                (steps.collect::<Vec<_>>(), state)
            };
            assert!(on_threads(1, run) == on_threads(3, run), "{}, {shape:?}", optimizer.name());
        }
    }
}

/// Protects large tensors at the boundaries of blocks of rows and columns: Adafactor's averages against plain sums.
#[test]
fn adafactor_averages_rows_and_columns() {
    let shape = [3, 70, 131];
    let (grad, mut state) = (TorchCpu::new(2).randn(3 * 70 * 131), Adafactor.state(&shape));
    Adafactor.step(&mut state, &shape, &mut grad.clone(), 0.1);
    let square = |m: usize, r: usize, c: usize| f64::from(grad[(m * 70 + r) * 131 + c]).powi(2);
    let [("exp_avg_sq_row", row), ("exp_avg_sq_col", col)] = state.tensors.as_slice() else {
        panic!("{:?}", state.tensors)
    };
    assert_eq!((row.len(), col.len()), (3 * 70, 3 * 131));
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
            let (mut state, mut grad) = (optimizer.state(shape), vec![0.0; shape.iter().product()]);
            let factor = optimizer.step(&mut state, shape, &mut grad, 0.1);
            assert!(
                factor.is_finite() && grad.iter().all(|step| *step == 0.0),
                "{}, {shape:?}: {grad:?}",
                optimizer.name()
            );
        }
    }
}

/// Protects the norm across pieces and at their remainders.
#[test]
fn squared_norms() {
    for n in [0, 1, 7, 8, 9, GRAIN, GRAIN + 1, 3 * GRAIN + 5] {
        let values: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        let expected: f64 = (0..n).map(|i| ((i % 7) * (i % 7)) as f64).sum();
        assert_eq!(squared_norm(&values), expected, "{n} values");
    }
    assert_eq!(squared_norm(&[1e30]), f64::from(1e30_f32).powi(2), "squares need not fit f32");
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
