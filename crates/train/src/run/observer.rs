//! What a run tells whoever started it, and asks of them.

use std::io::{self, Write};
use std::ops::ControlFlow;

use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{Image, Options};

/// Whoever watches a run.
pub trait Observer: Sync {
    /// `done` of `steps` steps are taken; the last had this loss.
    fn on_step(&mut self, done: usize, steps: usize, loss: f64);
    /// Breaks where the run is to stop: after the present step, sample or picture.
    fn flow(&self) -> ControlFlow<()>;
    /// Writes a sample as PNG.
    ///
    /// # Errors
    /// Those of `to`.
    fn write_sample(&self, to: &mut dyn Write, sample: &Sample) -> io::Result<()>;
}

/// A picture, and what makes it again.
pub struct Sample<'a> {
    /// The picture.
    pub image: &'a Image,
    /// Its plan; the weights are the checkpoint after the step, as a path from the folder that the run's folder is in.
    pub plan: &'a PredictPlan,
    /// How it was computed.
    pub options: Options,
}
