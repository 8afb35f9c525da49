//! How much memory a training takes at most, before it takes it.
//!
//! ```text
//! peak = latents + max(loading + pictures, training), or with samples: training with theirs instead of what the tape keeps, if that is more
//! loading  = VAE + its activations on one picture
//! training = UNet + text encoders + what trains (value, gradient, optimizer)
//!          + what the tape keeps + the largest block's insides, forward and back
//! ```
//!
//! What the tape keeps is counted per pixel of each level (or token) and per channel; the constants say how many values.

use std::ffi::OsStr;

use calotype_tensor::DType;

use super::stages::{Stage, side, stages};

use crate::Error;
use crate::plan::{Method, TrainPlan};
use crate::trainer::{TrainerOptions, full, lora};
use calotype_models::config::{ClipTextConfig, UNetConfig};
use calotype_models::tokenizer::CLIP_TOKENS;
use calotype_models::weights::Weights;
use calotype_models::{Component, ModelConfigs, ModelFolder};

/// What the model's constants are: each is measured, and all stand here.
mod constants {
    /// Values a channel and pixel that a transformer block keeps for the way back.
    pub const TRANSFORMER_BLOCK: f64 = 24.0;
    /// The same of what is around the blocks of a transformer: norm, projections.
    pub const TRANSFORMER: f64 = 3.0;
    /// The same of a ResNet, beside its input.
    pub const RESNET: f64 = 3.0;
    /// The same of a text encoder's layer, a channel and token, beside the MLP's inside.
    pub const TEXT_LAYER: f64 = 6.0;
    /// Values a channel and pixel that are alive at once on the way back, beside what is kept.
    pub const BACKWARD: f64 = 12.0;
    /// The same for the VAE's widest level, in f32, on the way forward.
    pub const VAE: f64 = 6.0;
    /// Bytes for each trained value whose gradient waits for the others: the sum, and what is added to it.
    pub const GRADIENT: f64 = 8.0;
    /// Bytes for each value of the largest tensor, where gradients are used up one by one: a convolution's positions, and
    /// all of them together, and what the pool of freed memory keeps of them.
    pub const GRADIENT_AT_ONCE: f64 = 36.0;
    /// Bytes of a prepared picture's pixel: three colours and the mask.
    pub const PIXEL: f64 = 4.0;
    /// The program, the pool of freed memory, and what is not counted.
    pub const BASE: f64 = 8e7;
}

/// What a training needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint {
    /// Weights of the UNet and the text encoders.
    pub weights: f64,
    /// What trains, with gradients and the optimizer's state.
    pub trained: f64,
    /// Activations.
    pub activations: f64,
    /// At most, while the set is encoded.
    pub loading: f64,
    /// At most, while samples are made with a model of their own.
    pub samples: f64,
    /// The set's prepared pictures, until the first step.
    pub pictures: f64,
    /// The pictures as latents.
    pub latents: f64,
    /// The program itself, and what else is not counted.
    pub base: f64,
}

impl Footprint {
    /// Reads the model's configs and the headers of its weights. For a set of so many pictures.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn predict(
        folder: &ModelFolder,
        plan: &TrainPlan,
        options: TrainerOptions,
        pictures: usize,
    ) -> Result<Self, Error> {
        let configs = folder.configs()?;
        let store = (options.dtype == DType::BF16).then_some(DType::BF16);
        let unet = folder.weights(Component::UNet, None, store)?;
        let frozen = |key: &str| plan.method != Method::Full || !full::trains(key);
        let mut weights = unet.packed_bytes(frozen);
        for component in [Component::TextEncoder, Component::TextEncoder2] {
            if component == Component::TextEncoder2 || configs.text_encoder.is_some() {
                weights += folder.weights(component, None, store)?.packed_bytes(|_| true);
            }
        }
        let vae = folder.weights(Component::Vae, None, None)?.packed_bytes(|_| true);
        let loading = vae as f64 + encoding(&configs, plan.resolution);
        // What was learnt is merged into the second UNet in f32, where it is not to be bf16.
        let merged = |key: &str| store.is_none() && trains(key, plan.method);
        let values: usize = unet
            .shapes()
            .filter(|(key, _)| merged(key))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        let second = unet.packed_bytes(|key| !merged(key)) as f64 + 4.0 * values as f64;
        let latent = plan.resolution / configs.vae.scale().max(1);
        let values = activations(&configs.unet, latent, options.recompute) + text(&configs);
        let values = values * plan.train_batch_size as f64;
        Ok(Self {
            weights: weights as f64,
            trained: trained(&unet, plan)?,
            activations: values * options.dtype.size() as f64,
            loading,
            samples: second + loading,
            pictures: (pictures * plan.resolution.pow(2)) as f64 * constants::PIXEL,
            latents: (pictures * latent.pow(2) * (2 * configs.vae.latent_channels + 1)) as f64 * 4.0,
            base: constants::BASE,
        })
    }

    /// The most that is taken at any time, in bytes, where no samples are made.
    pub fn peak(&self) -> f64 {
        let training = self.weights + self.trained + self.activations.max(self.pictures);
        self.base + self.latents + training.max(self.loading + self.pictures)
    }

    /// The same where they are.
    pub fn peak_with_samples(&self) -> f64 {
        self.peak().max(self.base + self.latents + self.weights + self.trained + self.samples)
    }
}

/// Values that a forward with its way back holds, of one picture of latent × latent pixels.
fn activations(config: &UNetConfig, latent: usize, recompute: bool) -> f64 {
    let mut count = Count { recompute, kept: 0.0, largest: 0.0 };
    let pixels = |level: usize| side(latent, level).max(1).pow(2) as f64;
    for stage in stages(config) {
        match stage {
            Stage::Resnet { level, input, output } => count.resnet(pixels(level), input, output),
            Stage::Transformer { level, depth } => {
                count.transformer(pixels(level), config.block_out_channels[level], depth);
            }
            Stage::Down { .. } | Stage::Up { .. } => {}
        }
    }
    count.kept + count.largest
}

/// Values that both text encoders keep of one caption while the new tokens' embeddings train.
fn text(configs: &ModelConfigs) -> f64 {
    let encoders = configs.text_encoder.iter().chain([&configs.text_encoder_2]);
    let layer =
        |e: &ClipTextConfig| constants::TEXT_LAYER * e.hidden_size as f64 + e.intermediate_size as f64;
    encoders.map(|e| (CLIP_TOKENS * e.num_hidden_layers) as f64 * layer(e)).sum()
}

/// What blocks keep, in values.
struct Count {
    recompute: bool,
    kept: f64,
    /// What the largest block has alive on the way back.
    largest: f64,
}

impl Count {
    fn resnet(&mut self, pixels: f64, input: usize, output: usize) {
        let (input, output) = (input as f64 * pixels, output as f64 * pixels);
        self.block(1.0, input, input + constants::RESNET * output, output);
    }

    fn transformer(&mut self, pixels: f64, channels: usize, depth: usize) {
        let channels = channels as f64 * pixels;
        self.kept += constants::TRANSFORMER * channels;
        self.block(depth as f64, channels, constants::TRANSFORMER_BLOCK * channels, channels);
    }

    /// `times` a block that keeps its input alone where it is computed again.
    fn block(&mut self, times: f64, input: f64, inside: f64, output: f64) {
        let (kept, again) = if self.recompute { (input, inside) } else { (inside, 0.0) };
        self.kept += times * kept;
        self.largest = self.largest.max(again + constants::BACKWARD * output);
    }
}

/// Bytes of the VAE's activations on one picture.
fn encoding(configs: &ModelConfigs, resolution: usize) -> f64 {
    let channels = configs.vae.block_out_channels.first().copied().unwrap_or(0) as f64;
    (resolution * resolution) as f64 * channels * 4.0 * constants::VAE
}

/// Bytes of what trains in the UNet, with gradients and the optimizer's state.
fn trained(unet: &Weights, plan: &TrainPlan) -> Result<f64, Error> {
    let (optimizer, at_once) = (plan.optimizer()?, plan.steps_at_once()?);
    let (mut bytes, mut largest) = (0.0, 0.0_f64);
    for shape in unet.shapes().flat_map(|(key, shape)| trained_shapes(key, shape, plan.method)) {
        let values = shape.iter().product::<usize>() as f64;
        let averages: usize = optimizer.averages(&shape).iter().map(|(_, count)| count).sum();
        bytes += 4.0 * (values + averages as f64);
        bytes += if at_once { 0.0 } else { constants::GRADIENT * values };
        largest = largest.max(values);
    }
    Ok(bytes + if at_once { constants::GRADIENT_AT_ONCE * largest } else { 0.0 })
}

/// How many values train in the UNet.
pub(super) fn trained_values(folder: &ModelFolder, plan: &TrainPlan) -> Result<f64, Error> {
    let unet = folder.weights(Component::UNet, None, None)?;
    let shapes = unet.shapes().flat_map(|(key, shape)| trained_shapes(key, shape, plan.method));
    Ok(shapes.map(|shape| shape.iter().product::<usize>() as f64).sum())
}

/// Whether something trains because of a UNet's tensor.
fn trains(key: &str, method: Method) -> bool {
    match method {
        Method::Full => full::trains(key),
        Method::Lora { .. } => key.strip_suffix(".weight").is_some_and(lora::trains),
        Method::TextualInversion => false,
    }
}

/// The shapes of what trains because of a UNet's tensor.
fn trained_shapes(key: &str, shape: &[usize], method: Method) -> Vec<Vec<usize>> {
    match (method, shape) {
        _ if !trains(key, method) => Vec::new(),
        (Method::Full, _) => vec![shape.to_vec()],
        (Method::Lora { rank }, &[out, inp]) => vec![vec![rank, inp], vec![out, rank]],
        _ => Vec::new(),
    }
}

/// The environment variable that says how many bytes a training may take.
const VARIABLE: &str = "CALOTYPE_MEMORY";

/// The bytes that `CALOTYPE_MEMORY` says; none where the variable is not set, or empty.
///
/// # Errors
/// The variable is no whole number of bytes. The text is one line that names the variable.
pub fn stated() -> Result<Option<f64>, String> {
    std::env::var_os(VARIABLE).filter(|bytes| !bytes.is_empty()).map(|bytes| bytes_of(&bytes)).transpose()
}

fn bytes_of(text: &OsStr) -> Result<f64, String> {
    let bytes = text.to_str().and_then(|text| text.parse::<u64>().ok());
    let wrong = || format!("{VARIABLE}: expected a number of bytes, such as 16000000000, found {text:?}");
    bytes.map(|bytes| bytes as f64).ok_or_else(wrong)
}

/// The bytes that can still be taken: what `CALOTYPE_MEMORY` says, else the least of what the system and its control
/// groups leave; none where that is not known (outside of Linux).
///
/// # Errors
/// Those of [`stated`].
pub fn available() -> Result<Option<f64>, String> {
    if let Some(bytes) = stated()? {
        return Ok(Some(bytes));
    }
    let left = |system| control_groups().into_iter().fold(system, f64::min).max(0.0);
    Ok(entry("/proc/meminfo", "MemAvailable:").map(left))
}

/// The bytes that this process has taken at most so far, files' pages in its memory included; none where that is not known
/// (outside of Linux).
pub fn taken() -> Option<f64> {
    entry("/proc/self/status", "VmHWM:")
}

/// The bytes of a line `name 123 kB`.
fn entry(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// What the limit of each control group above this process leaves. Cached files give way, and do not count.
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

    /// Protects: a limit that is no number of bytes is an error that names the variable.
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
