//! Predicts how long a training takes.
//!
//! The work is counted (`count.rs`), in FLOPs of products and in units of other work. A short product measures the current speed
//! of the machine.

use std::time::{Duration, Instant};

use calotype_tensor::meta::{Work, WorkKind};
use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{DType, Tensor, Weight};

use super::count::Model;
use super::memory;
use crate::Error;
use crate::plan::TrainPlan;
use crate::trainer::{TrainerOptions, validation};
use calotype_models::ModelFolder;

/// The cost of a unit of each [`WorkKind`], in FLOPs of the probe's product. Measured on AVX2; see docs/benchmarks.md.
const COSTS: [(WorkKind, f64); WorkKind::COUNT] = [
    (WorkKind::Product, 1.0),
    (WorkKind::NarrowProduct, 7.0),
    (WorkKind::Winograd, 0.55),
    (WorkKind::WeightGradient, 1.5),
    (WorkKind::Attention, 1.3),
    (WorkKind::AttentionBackward, 1.2),
    (WorkKind::Values, 40.0),
    (WorkKind::Weights, 65.0),
    (WorkKind::Calls, 3.5e6),
];
/// The cost of packing a weight at its first use, and of an optimizer's step, for each value.
const PACKING: f64 = 1500.0;
const OPTIMIZER: f64 = 760.0;
/// The time that the probe takes, unless three products take longer.
const PROBE: Duration = Duration::from_millis(300);

/// The times of a training's parts, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Encoding the set, and the first use of every weight.
    pub beginning: f64,
    /// A step in which the new tokens' embeddings are trained.
    pub early_step: f64,
    /// A step after the pivot.
    pub late_step: f64,
    /// A validation.
    pub validation: f64,
}

impl Times {
    /// Reads the model's configs and measures the current speed of this machine, which takes a third of a second.
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
        let once = model.validation()?.work;
        let [early, late] = [model.batch(plan, true)?.work, model.batch(plan, false)?.work];
        let batches = plan.options.gradient_accumulation_steps as f64;
        let optimizer = memory::trained_values(folder, plan)? * OPTIMIZER;
        let encoding = (model.picture()?.work + model.caption()?.work) * pictures as f64;
        let rate = probe(options.dtype);
        let seconds = |work: Work| cost(work) / rate;
        Ok(Self {
            beginning: seconds(encoding) + once.of(WorkKind::Weights) * PACKING / rate,
            early_step: seconds(early * batches) + optimizer / rate,
            late_step: seconds(late * batches) + optimizer / rate,
            validation: seconds(once * validation::SAMPLES as f64),
        })
    }

    /// Seconds from step `done` to the last, with `validations` validations.
    pub fn total(&self, plan: &TrainPlan, done: usize, validations: usize) -> f64 {
        let early = plan.pivot().saturating_sub(done);
        let late = plan.steps.saturating_sub(done.max(plan.pivot()));
        let steps = early as f64 * self.early_step + late as f64 * self.late_step;
        self.beginning + steps + validations as f64 * self.validation
    }
}

/// The cost of work, in FLOPs of the probe's product.
fn cost(work: Work) -> f64 {
    COSTS.iter().map(|&(kind, cost)| work.of(kind) * cost).sum()
}

/// The speed of a product of a UNet's size, in FLOPs per second.
fn probe(dtype: DType) -> f64 {
    const ROWS: usize = 1024;
    const WIDTH: usize = 1280;
    let values = |rows: usize| Tensor::full(&[rows, WIDTH], 0.5, dtype);
    let (x, weight) = (values(ROWS), Weight::from_tensor(&values(WIDTH)));
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 3 || start.elapsed() < PROBE {
        let start = Instant::now();
        std::hint::black_box(ops::linear(&x, &weight, LinearArgs::default()));
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    2.0 * (ROWS * WIDTH * WIDTH) as f64 / seconds[seconds.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the forecast of a resumed run: it covers the steps that are left, before and after the pivot.
    #[test]
    fn what_is_left() {
        let plan = TrainPlan { steps: 10, ..TrainPlan::default() };
        let times = Times { beginning: 100.0, early_step: 3.0, late_step: 2.0, validation: 0.5 };
        for (done, seconds) in [(0, 126.0), (4, 114.0), (7, 107.0), (10, 101.0), (11, 101.0)] {
            assert_eq!(times.total(&plan, done, 2), seconds, "{done}");
        }
    }
}
