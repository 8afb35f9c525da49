//! Checks whether a training fits into the available memory, and suggests changes that would make it fit.

use calotype_models::ModelFolder;
use calotype_tensor::DType;
use calotype_train::TrainerOptions;
use calotype_train::forecast::memory::{Footprint, available, taken};
use calotype_train::{Method, TrainOptions, TrainPlan};

use super::args::Recompute;
use super::record::Record;
use crate::failure::Failure;

/// How the run computes, and a text about its memory.
pub struct Fit {
    pub options: TrainerOptions,
    /// Whether samples are made: they were requested, and there is enough memory for them.
    pub samples: bool,
    /// The most memory that the run takes, in bytes.
    pub bytes: f64,
    /// `about 12.3 GB of memory at most`
    pub summary: String,
}

/// Decides whether activations are recomputed, and refuses a training that does not fit.
///
/// # Errors
/// A file of the model is missing or invalid, or there is not enough memory.
pub fn fit(
    folder: &ModelFolder,
    Record { plan, dtype, recompute, sample_every, .. }: &Record,
    pictures: usize,
) -> Result<Fit, Failure> {
    let dtype = DType::from(*dtype);
    let footprint = |plan: &TrainPlan, recompute: bool| -> Result<Footprint, Failure> {
        Ok(Footprint::predict(folder, plan, TrainerOptions { dtype, recompute }, pictures)?)
    };
    let peak = |plan: &TrainPlan, recompute: bool| Ok::<f64, Failure>(footprint(plan, recompute)?.peak());
    let room = available().map_err(Failure::BadInput)?;
    let fits = |bytes: f64| room.is_none_or(|room| bytes <= room);
    let on = match recompute {
        Recompute::On => true,
        Recompute::Off => false,
        Recompute::Auto => !fits(peak(plan, false)?),
    };
    let needed = footprint(plan, on)?;
    let (needed, with_samples) = (needed.peak(), needed.peak_with_samples());
    let samples = sample_every.is_some() && fits(with_samples);
    if fits(needed) {
        if sample_every.is_some() && !samples {
            let room = room.map(size).unwrap_or_default();
            tracing::warn!("--sample-every: expected about {}, found {room}: no samples", size(with_samples));
        }
        let needed = if samples { with_samples } else { needed };
        let needed = taken().map_or(needed, |before| needed.max(before)); // the networks that made captions and masks
        let again = if on { ", computing activations again to save memory" } else { "" };
        let summary = format!("about {} of memory at most{again}", size(needed));
        let options = TrainerOptions { dtype, recompute: on };
        return Ok(Fit { options, samples, bytes: needed, summary });
    }
    let mut advice = "no smaller setting would fit".to_string();
    for (what, plan) in smaller(plan) {
        let needed = peak(&plan, true)?;
        if fits(needed) {
            let recompute = if on { "" } else { "--recompute on" };
            let and = if on || what.is_empty() { "" } else { " and " };
            advice = format!("{recompute}{and}{what} would take {}", size(needed));
            break;
        }
    }
    let room = room.map(size).unwrap_or_default();
    Err(Failure::Failed(format!(
        "memory: expected about {} for this training, found {room}: {advice}",
        size(needed)
    )))
}

/// Plans that need less memory, from the least to the greatest change, each with a description.
fn smaller(plan: &TrainPlan) -> Vec<(String, TrainPlan)> {
    let mut all = vec![(String::new(), plan.clone())];
    if plan.method == Method::Full && !plan.steps_at_once().unwrap_or(true) {
        // Each gradient is applied at once, and none waits for others.
        let options = TrainOptions {
            optimizer: Some("adafactor".into()),
            gradient_accumulation_steps: 1,
            max_grad_norm: None,
            ..plan.options.clone()
        };
        let what = "optimizer adafactor, gradient_accumulation_steps 1 and no max_grad_norm".into();
        all.push((what, TrainPlan { options, ..plan.clone() }));
    }
    let mut batch = plan.train_batch_size;
    while batch > 1 {
        batch /= 2;
        let plan = TrainPlan { train_batch_size: batch, ..plan.clone() };
        all.push((format!("train_batch_size {batch}"), plan));
    }
    if let Method::Lora { rank } = plan.method {
        let batches = [Some(plan.train_batch_size), (plan.train_batch_size > 1).then_some(1)];
        for batch in batches.into_iter().flatten() {
            let ranks =
                std::iter::successors(Some(rank / 2), |rank| Some(rank / 2)).take_while(|rank| *rank > 0);
            for rank in ranks {
                let method = Method::Lora { rank };
                let smaller = TrainPlan { train_batch_size: batch, method, ..plan.clone() };
                let batches = if batch < plan.train_batch_size { "train_batch_size 1 and " } else { "" };
                all.push((format!("{batches}lora_rank {rank}"), smaller));
            }
        }
    }
    for resolution in [1024, 768, 512, 256, 128, 64].into_iter().filter(|&r| r < plan.resolution) {
        let batches = if plan.train_batch_size > 1 { "train_batch_size 1 and " } else { "" };
        let plan = TrainPlan { train_batch_size: 1, resolution, ..plan.clone() };
        all.push((format!("{batches}resolution {resolution}"), plan));
    }
    all
}

/// A size in units for people.
pub fn size(bytes: f64) -> String {
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}
