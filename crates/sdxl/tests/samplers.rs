//! The samplers against diffusers: every trajectory of the golden file, and what bad configurations answer.

use std::collections::HashMap;
use std::ops::ControlFlow;

use calotype_sdxl::samplers::{Hooks, Sampler, Schedule, SchedulerConfig, sample};
use calotype_tensor::Tensor;
use calotype_tensor::rng::TorchCpu;
use safetensors::SafeTensors;

const SHAPE: [usize; 4] = [1, 4, 4, 6];
const LATENTS: usize = 96;

/// What a run showed: the network's inputs with their timesteps, the steps reported, and the result.
struct Run {
    calls: Vec<(Vec<f32>, f32)>,
    steps: Vec<(usize, usize)>,
    x: Vec<f32>,
}

/// Runs a sampler on the golden file's stand-in for a network: smooth, bounded, different at every timestep.
fn run(schedule: &Schedule, seed: u64) -> Run {
    let mut rng = TorchCpu::new(seed);
    let start = rng.randn(LATENTS).iter().map(|value| value * schedule.init_noise_sigma()).collect();
    let (mut calls, mut steps) = (Vec::new(), Vec::new());
    let network =
        |x: &f32, t: f32| x / (1.0 + x * x).sqrt() * 0.8 + 0.1 * (f64::from(t) / 100.0).cos() as f32;
    let mut hooks = Hooks {
        denoise: &mut |x, t| {
            calls.push((x.to_vec(), t));
            Tensor::from_vec(x.to_vec().iter().map(|x| network(x, t)).collect(), &SHAPE)
        },
        noise: &mut || Tensor::from_vec(rng.randn(LATENTS), &SHAPE),
        on_step: &mut |step| {
            steps.push((step.index, step.total));
            ControlFlow::Continue(())
        },
    };
    let ControlFlow::Continue(x) = sample(schedule, Tensor::from_vec(start, &SHAPE), &mut hooks) else {
        panic!("stopped without being asked to")
    };
    Run { calls, steps, x: x.to_vec() }
}

fn schedule(name: &str, config: &str, steps: usize) -> Result<Schedule, String> {
    let sampler = Sampler::find(name).map_err(|error| error.to_string())?;
    let config =
        SchedulerConfig::parse("scheduler_config.json", config).map_err(|error| error.to_string())?;
    Schedule::new(sampler, &config, steps).map_err(|error| error.to_string())
}

fn floats(file: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let tensor = file.tensor(name).ok()?;
    Some(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn close(what: &str, ours: &[f32], golden: &[f32]) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    let scale = golden.iter().fold(1e-3, |max: f32, value| max.max(value.abs()));
    let error = ours.iter().zip(golden).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
    assert!(error <= 1e-4 * scale, "{what}: differs by {error} where values reach {scale}");
}

/// Protects every sampler's whole way through every variant of the configuration: each timestep that the network is told, each
/// latent that it sees, the result, and that progress counts the steps that were asked for.
#[test]
fn trajectories_equal_diffusers() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/samplers.safetensors"));
    let bytes = bytes.expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden file");
    let metadata: HashMap<String, String> =
        header.metadata().clone().expect("golden metadata").into_iter().collect();
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let mut cases: Vec<_> = metadata.iter().filter(|(key, _)| key.matches('.').count() == 2).collect();
    cases.sort();
    assert!(cases.len() > 100, "{} cases", cases.len());
    for (case, config) in cases {
        let mut parts = case.split('.');
        let name = parts.next().expect("sampler");
        let steps: usize = parts.next_back().and_then(|steps| steps.parse().ok()).expect("steps");
        let schedule = schedule(name, config, steps).unwrap_or_else(|error| panic!("{case}: {error}"));
        let golden = |key: &str| floats(&file, &format!("{case}.{key}"));
        close(case, &[schedule.init_noise_sigma()], &golden("init_noise_sigma").expect("init_noise_sigma"));

        let run = run(&schedule, 7);
        let told: Vec<f32> = run.calls.iter().map(|(_, t)| *t).collect();
        close(&format!("{case}: timesteps"), &told, &golden("timesteps").expect("timesteps"));
        let x = golden("x").expect("x");
        let scaled = name.starts_with("K_") || name == "HeunDiscrete";
        let sigmas = golden("sigmas").filter(|_| scaled).unwrap_or(vec![0.0; told.len()]);
        for (i, (seen, _)) in run.calls.iter().enumerate() {
            let c_in = 1.0 / (sigmas[i] * sigmas[i] + 1.0).sqrt();
            let input: Vec<f32> = x[i * LATENTS..(i + 1) * LATENTS].iter().map(|x| x * c_in).collect();
            close(&format!("{case}: input {i}"), seen, &input);
        }
        close(&format!("{case}: result"), &run.x, &x[told.len() * LATENTS..]);
        assert_eq!(run.steps, (0..steps).map(|i| (i, steps)).collect::<Vec<_>>(), "{case}");
    }
}
