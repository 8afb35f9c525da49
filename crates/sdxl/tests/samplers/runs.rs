//! Runs of samplers on a stand-in for a network, and the golden file of the same runs in diffusers.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use calotype_sdxl::samplers::{Hooks, Sampler, Schedule, SchedulerConfig, sample};
use calotype_tensor::Tensor;
use calotype_tensor::rng::TorchCpu;
use safetensors::SafeTensors;

pub const SHAPE: [usize; 4] = [1, 4, 4, 6];
pub const LATENTS: usize = 96;

/// What a run showed: the network's inputs with their timesteps, the steps reported, and the result.
pub struct Run {
    pub calls: Vec<(Vec<f32>, f32)>,
    pub steps: Vec<(usize, usize)>,
    pub x: Vec<f32>,
}

/// Runs a sampler on the golden file's stand-in for a network: smooth, bounded, different at every timestep.
pub fn run(schedule: &Schedule, seed: u64) -> Run {
    let mut rng = TorchCpu::new(seed);
    let start = rng.randn(LATENTS).iter().map(|value| value * schedule.init_noise_sigma()).collect();
    run_range(schedule, 0..schedule.steps(), Tensor::from_vec(start, &SHAPE), &mut rng)
}

/// [`run`] for some of the steps.
pub fn run_range(schedule: &Schedule, range: Range<usize>, start: Tensor, rng: &mut TorchCpu) -> Run {
    let (mut calls, mut steps) = (Vec::new(), Vec::new());
    let network =
        |x: &f32, t: f32| x / (1.0 + x * x).sqrt() * 0.8 + 0.1 * (f64::from(t) / 100.0).cos() as f32;
    let mut hooks = Hooks {
        denoise: &mut |x, t| {
            calls.push((x.to_vec(), t));
            Tensor::from_vec(x.to_vec().iter().map(|x| network(x, t)).collect(), &SHAPE)
        },
        noise: &mut || Tensor::from_vec(rng.randn(LATENTS), &SHAPE),
        constrain: &mut |x, _| x,
        on_step: &mut |step| {
            steps.push((step.index, step.total));
            ControlFlow::Continue(())
        },
    };
    let ControlFlow::Continue(x) = sample(schedule, range, start, &mut hooks) else {
        panic!("stopped without being asked to")
    };
    Run { calls, steps, x: x.to_vec() }
}

pub fn schedule(name: &str, config: &str, steps: usize) -> Result<Schedule, String> {
    let sampler = Sampler::find(name).map_err(|error| error.to_string())?;
    let config =
        SchedulerConfig::parse("scheduler_config.json", config).map_err(|error| error.to_string())?;
    Schedule::new(sampler, &config, steps).map_err(|error| error.to_string())
}

/// The golden file.
pub struct Golden {
    file: Vec<u8>,
    /// The configurations by case.
    configs: BTreeMap<String, String>,
}

impl Golden {
    pub fn open() -> Golden {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/samplers.safetensors");
        let file = std::fs::read(path).expect("golden file");
        let (_, header) = SafeTensors::read_metadata(&file).expect("golden file");
        let configs = header.metadata().clone().expect("golden metadata").into_iter().collect();
        Golden { file, configs }
    }

    /// The cases with this number of dots in their names, and their configurations.
    pub fn cases(&self, dots: usize) -> Vec<(&String, &String)> {
        self.configs.iter().filter(|(case, _)| case.matches('.').count() == dots).collect()
    }

    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let file = SafeTensors::deserialize(&self.file).expect("golden file");
        let tensor = file.tensor(name).ok()?;
        Some(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

pub fn close(what: &str, ours: &[f32], golden: &[f32]) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    let scale = golden.iter().fold(1e-3, |max: f32, value| max.max(value.abs()));
    let error = ours.iter().zip(golden).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
    assert!(error <= 1e-4 * scale, "{what}: differs by {error} where values reach {scale}");
}
