//! The loop of a run: steps, and what is written on the way.

use std::time::Instant;

use calotype_train::{Trainer, checkpoint};

use super::metrics::Metrics;
use super::record::Record;
use super::run_dir::RunDir;
use super::samples;
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Progress;

/// Of `loss.png`, in pixels.
const CHART: (u32, u32) = (1200, 640);

/// A run that goes on.
pub struct Session<'a> {
    pub trainer: &'a mut Trainer,
    pub record: &'a Record,
    pub dir: &'a RunDir,
    pub metrics: Metrics,
    pub samples: bool,
}

impl Session<'_> {
    /// The validation loss before the first step, of a run that has none yet.
    ///
    /// # Errors
    /// A file cannot be written, or a signal.
    pub fn first_validation(&mut self) -> Result<Option<f64>, Failure> {
        if self.metrics.has_validation() || self.trainer.steps_done() > 0 {
            return Ok(None);
        }
        self.validate()?.map(Some).ok_or(Failure::Interrupted)
    }

    /// Takes all steps that are left. A signal ends the run after its step, with a checkpoint.
    ///
    /// # Errors
    /// The loss is not a number, a file cannot be written, or a signal.
    pub fn run(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        if self.trainer.steps_done() > 0 && !self.look(true)? {
            return Err(Failure::Interrupted);
        }
        while self.trainer.steps_done() < self.record.plan.steps {
            let ended = self.step(progress);
            if ended.is_err() {
                // The curve up to here says what went wrong; its own failure would hide that.
                let _ = self.draw();
            }
            ended?;
        }
        Ok(())
    }

    fn step(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let start = Instant::now();
        let report = self.trainer.step()?;
        self.metrics.step(&report, start.elapsed())?;
        let (done, steps) = (self.trainer.steps_done(), self.record.plan.steps);
        progress.step_saying(done, steps, &format!(" loss {:.4}", report.loss));
        let looked = self.look(false)?;
        let interrupted = interrupt::asked() && (done < steps || !looked);
        if self.due(self.record.plan.checkpointing_steps) || interrupted {
            checkpoint::save(self.dir.path(), self.trainer, self.record.keep_checkpoints)?;
            self.draw()?;
        }
        if interrupted { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Validates and makes samples where the present step asks for them; with `missing`, only what a signal cut short
    /// after this step. False where a signal cuts it short now.
    fn look(&mut self, missing: bool) -> Result<bool, Failure> {
        let done = self.trainer.steps_done();
        let validate =
            self.due(self.record.validate_every) && !(missing && self.metrics.has_validation_at(done));
        if validate && self.validate()?.is_none() {
            return Ok(false);
        }
        let sample = self.samples && self.record.sample_every.is_some_and(|every| self.due(every));
        if !sample || missing && samples::are_made(self.record, self.dir.path(), done) {
            return Ok(true);
        }
        samples::make(&self.trainer.trained_weights(), self.record, self.dir.path(), done)
    }

    /// Whether what is done every so many steps, and at the end, is due after the present step.
    fn due(&self, every: usize) -> bool {
        let done = self.trainer.steps_done();
        done.is_multiple_of(every) || done == self.record.plan.steps
    }

    /// None where a signal cuts it short.
    fn validate(&mut self) -> Result<Option<f64>, Failure> {
        let loss = self.trainer.validation_loss_unless(&mut interrupt::flow);
        if let Some(loss) = loss {
            self.metrics.validation(self.trainer.steps_done(), loss)?;
        }
        Ok(loss)
    }

    fn draw(&self) -> Result<(), Failure> {
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.dir.write("loss.png", &self.metrics.losses(name, self.record.plan.steps).chart(CHART).png())
    }
}
