//! Predicts the most memory that a training takes.
//!
//! ```text
//! peak = latents + max(loading + pictures, training)
//!        with samples, also at least: latents + training, with `samples` in place of activations
//! loading  = VAE + its activations on one picture
//! training = UNet + text encoders + trained parameters (value, gradient, optimizer)
//!          + activations of a step's forward and backward pass
//! ```
//!
//! The activations are those of the real networks, counted by `count.rs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::count::Model;
use crate::Error;
use crate::plan::{Method, TrainPlan};
use crate::trainer::{TrainerOptions, full, shapes};
use calotype_models::weights::Weights;
use calotype_models::weights::store_for;
use calotype_models::{Component, ModelFolder};
use calotype_tensor::meta::Counted;

/// The constants of the prediction. Each is measured.
mod constants {
    /// Bytes for each byte of tensors that are counted: sizes are rounded up, kernels have memory of their own, and freed memory is
    /// kept.
    pub const ACTIVATIONS: f64 = 1.3;
    /// Bytes that the pool of freed memory may hold, with what is in use, even if less was ever in use at a time. Up to there, the
    /// activations of steps, validations and captions add up, as their sizes differ.
    pub const POOL: f64 = 268_435_456.0;
    /// Bytes for each byte of tensors that are counted, as long as the pool is not full.
    pub const POOLED: f64 = 2.2;
    /// Bytes for each trained value of LoRA: the copy that is written at the end, and that samples are made with.
    pub const WRITTEN: f64 = 4.0;
    /// Bytes for each trained value whose gradient is summed: the sum, and the gradient that is added.
    pub const GRADIENT: f64 = 8.0;
    /// Bytes for each value of the largest tensor, if gradients are applied one by one: the gradient at each position of a
    /// convolution's kernel, their combination, and their share of the pool of freed memory.
    pub const GRADIENT_AT_ONCE: f64 = 36.0;
    /// Bytes per pixel of a prepared picture: three colours and the mask.
    pub const PIXEL: f64 = 4.0;
    /// Bytes of the program, the pool of freed memory, and everything that is not counted.
    pub const BASE: f64 = 1.05e8;
}

/// The memory of a training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint {
    /// The weights of the UNet and the text encoders that are not trained.
    pub weights: f64,
    /// The trained parameters, with gradients and optimizer states.
    pub trained: f64,
    /// Activations.
    pub activations: f64,
    /// The most that encoding the set takes.
    pub loading: f64,
    /// The most that a second model takes while samples are made.
    pub samples: f64,
    /// The prepared pictures of the set, until the first step.
    pub pictures: f64,
    /// The latents of the set's pictures.
    pub latents: f64,
    /// The program itself, and everything that is not counted.
    pub base: f64,
}

impl Footprint {
    /// Predicts the memory for a set of `pictures` pictures, from the model's configs and the headers of its weights.
    ///
    /// # Errors
    /// A file of the model is missing or invalid.
    pub fn predict(
        folder: &ModelFolder,
        plan: &TrainPlan,
        options: TrainerOptions,
        pictures: usize,
    ) -> Result<Self, Error> {
        let model = Model::new(folder, plan, options)?;
        let store = store_for(options.dtype);
        let unet = folder.weights(Component::UNet, None, store)?;
        let frozen = |key: &str| plan.method != Method::Full || !full::trains(key);
        let mut weights = unet.packed_bytes(frozen);
        for component in [Component::TextEncoder, Component::TextEncoder2] {
            if component == Component::TextEncoder2 || folder.has_text_encoder {
                weights += folder.weights(component, None, store)?.packed_bytes(|_| true);
            }
        }
        let vae = folder.weights(Component::Vae, None, None)?.packed_bytes(|_| true);
        let loading = vae as f64 + constants::ACTIVATIONS * model.picture()?.peak_bytes as f64;
        // The trained weights are merged into the second UNet in f32, unless weights are bf16.
        let merged = unet.shapes().filter(|(key, shape)| store.is_none() && shapes::trains(key, shape, plan));
        let merged: BTreeMap<&str, usize> =
            merged.map(|(key, shape)| (key, shape.iter().product())).collect();
        let values: usize = merged.values().sum();
        let second = unet.packed_bytes(|key| !merged.contains_key(key)) as f64 + 4.0 * values as f64;
        Ok(Self {
            weights: weights as f64,
            trained: trained(&unet, plan)?,
            activations: kept([model.batch(plan, true)?, model.validation()?, model.caption()?]),
            loading,
            samples: second + loading,
            pictures: (pictures * plan.resolution.pow(2)) as f64 * constants::PIXEL,
            latents: (pictures * model.latents()) as f64 * 4.0,
            base: constants::BASE,
        })
    }

    /// The most memory at any time, in bytes, if no samples are made.
    pub fn peak(&self) -> f64 {
        let training = self.weights + self.trained + self.activations.max(self.pictures);
        self.base + self.latents + training.max(self.loading + self.pictures)
    }

    /// The most memory at any time, in bytes, if samples are made.
    pub fn peak_with_samples(&self) -> f64 {
        self.peak().max(self.base + self.latents + self.weights + self.trained + self.samples)
    }
}

/// Bytes that the activations of several networks take, one after the other.
fn kept(networks: [Counted; 3]) -> f64 {
    let bytes = networks.map(|network| network.peak_bytes as f64);
    let largest = constants::ACTIVATIONS * bytes.into_iter().fold(0.0, f64::max);
    let all = constants::POOLED * bytes.into_iter().sum::<f64>();
    all.min(constants::POOL).max(largest)
}

/// Bytes of the UNet's trained parameters, with gradients and optimizer states.
fn trained(unet: &Weights, plan: &TrainPlan) -> Result<f64, Error> {
    let (optimizer, at_once) = (plan.optimizer()?, plan.steps_at_once()?);
    let (mut bytes, mut largest) = (0.0, 0.0_f64);
    for (_, shape) in unet.shapes().flat_map(|(key, shape)| shapes::trained(key, shape, plan)) {
        let values = shape.iter().product::<usize>() as f64;
        let averages = optimizer.averages(&shape);
        let averages: usize = averages.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        bytes += 4.0 * (values + averages as f64);
        bytes += if at_once { 0.0 } else { constants::GRADIENT * values };
        bytes += if matches!(plan.method, Method::Lora { .. }) { constants::WRITTEN * values } else { 0.0 };
        largest = largest.max(values);
    }
    Ok(bytes + if at_once { constants::GRADIENT_AT_ONCE * largest } else { 0.0 })
}

/// The number of trained values that belong to the UNet.
pub(super) fn trained_values(folder: &ModelFolder, plan: &TrainPlan) -> Result<f64, Error> {
    let unet = folder.weights(Component::UNet, None, None)?;
    let shapes = unet.shapes().flat_map(|(key, shape)| shapes::trained(key, shape, plan));
    Ok(shapes.map(|(_, shape)| shape.iter().product::<usize>() as f64).sum())
}

/// The environment variable with the bytes that a training may take.
const VARIABLE: &str = "CALOTYPE_MEMORY";

/// The bytes that `CALOTYPE_MEMORY` sets. `None`: the variable is not set, or is empty.
///
/// # Errors
/// The variable is not a whole number of bytes. The text is one line that names the variable.
pub fn stated() -> Result<Option<f64>, String> {
    std::env::var_os(VARIABLE).filter(|bytes| !bytes.is_empty()).map(|bytes| bytes_of(&bytes)).transpose()
}

fn bytes_of(text: &OsStr) -> Result<f64, String> {
    let bytes = text.to_str().and_then(|text| text.parse::<u64>().ok());
    let wrong = || format!("{VARIABLE}: expected a number of bytes, such as 16000000000, found {text:?}");
    bytes.map(|bytes| bytes as f64).ok_or_else(wrong)
}

/// The bytes that are still available: the value of `CALOTYPE_MEMORY`, or else the least that the system and its control groups
/// leave. `None`: unknown (outside of Linux).
///
/// # Errors
/// As [`stated`].
pub fn available() -> Result<Option<f64>, String> {
    if let Some(bytes) = stated()? {
        return Ok(Some(bytes));
    }
    let left = |system| control_groups().into_iter().fold(system, f64::min).max(0.0);
    Ok(entry("/proc/meminfo", "MemAvailable:").map(left))
}

/// The most bytes that this process has taken so far, including mapped pages of files. `None`: unknown (outside of Linux).
pub fn taken() -> Option<f64> {
    entry("/proc/self/status", "VmHWM:")
}

/// The bytes of a line `name 123 kB` in a file.
fn entry(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// The bytes that the limit of each control group of this process leaves. Cached files can be evicted, so they do not count.
fn control_groups() -> Vec<f64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim().to_owned();
    let root = std::path::Path::new("/sys/fs/cgroup");
    let folder = root.join(path.trim_start_matches('/'));
    let mut left: Vec<f64> = folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| group(folder, ["memory.max", "memory.current"], "inactive_file"))
        .collect();
    let names = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    left.extend(group(&root.join("memory"), names, "total_inactive_file"));
    left
}

fn group(folder: &std::path::Path, [limit, used]: [&str; 2], cached: &str) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<f64>().ok();
    let stat = read("memory.stat").unwrap_or_default();
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    let cached = lines.into_iter().find(|(name, _)| *name == cached).and_then(|(_, n)| n.parse().ok());
    Some(number(limit)? - number(used)? + cached.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the activations of small models: those of several networks add up, as far as the pool keeps them; of large ones the
    /// largest counts.
    #[test]
    fn activations_add_up_in_the_pool() {
        let kept =
            |bytes: [usize; 3]| kept(bytes.map(|peak_bytes| Counted { peak_bytes, ..Counted::default() }));
        assert_eq!(kept([10_000_000, 20_000_000, 0]).round(), 66e6);
        assert_eq!(kept([150_000_000, 100_000_000, 1]), constants::POOL);
        assert_eq!(kept([1_000_000_000, 500_000_000, 9]), 1.3e9);
    }

    /// Protects the limit: text that is not a number of bytes is an error that names the variable.
    #[test]
    fn a_limit_is_a_number_of_bytes() {
        assert_eq!(bytes_of(OsStr::new("16000000000")), Ok(16e9));
        for wrong in ["16GB", "-1", "1e9", "nan", " 1"] {
            let said = bytes_of(OsStr::new(wrong)).expect_err("no number of bytes");
            assert!(said.starts_with("CALOTYPE_MEMORY: expected a number of bytes"), "{said}");
            assert!(said.ends_with(&format!("found {wrong:?}")), "{said}");
        }
    }
}
