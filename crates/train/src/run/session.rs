//! The loop of a run: steps, and what is written on the way.

use std::time::Instant;

use super::dir::RunDir;
use super::metrics::Metrics;
use super::observer::Observer;
use super::samples::Samples;
use super::timer::CheckpointTimer;
use crate::checkpoint;
use crate::error::Error;
use crate::stop::{self, Stop};
use crate::trainer::Trainer;

/// Width and height of `loss.png`, in pixels.
const CHART: (u32, u32) = (1200, 640);

/// What is done on the way.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Steps between validations, at least 1.
    pub validate_every: usize,
    /// Checkpoints that stay, at least 1.
    pub keep_checkpoints: usize,
    /// Pictures, where any are made.
    pub samples: Option<Samples>,
}

/// The weights that are the result of a run that may end before its last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// The steps that were taken.
    pub done: usize,
    /// Whether the run ended because its validation loss had stopped falling.
    pub stopped: bool,
    /// The step after which the weights are taken.
    pub step: usize,
    /// The validation loss after that step.
    pub loss: f64,
    /// Whether no other step has a lower validation loss. False where the checkpoint of the step that has was lost.
    pub lowest: bool,
}

/// A run that goes on.
pub struct Session<'a> {
    /// The training.
    pub trainer: &'a mut Trainer,
    /// What is done on the way.
    pub options: &'a RunOptions,
    /// The run's folder.
    pub dir: &'a RunDir,
    /// `metrics.jsonl`.
    pub metrics: Metrics,
    /// When checkpoints are due besides those of the plan.
    pub timer: CheckpointTimer,
}

impl Session<'_> {
    /// The validation loss before the first step, of a run that has none yet.
    ///
    /// # Errors
    /// A file cannot be written, or `observer` stops the run.
    pub fn first_validation(&mut self, observer: &dyn Observer) -> Result<Option<f64>, Error> {
        if self.trainer.steps_done() > 0 || self.is_validated() {
            return Ok(None);
        }
        self.validate(observer)?.map(Some).ok_or(Error::Interrupted)
    }

    /// Takes all steps that are left, or those until the validation loss has stopped falling, if the plan says so: the trainer then
    /// has the best of its weights, which are described, and which samples are made with. Where `observer` stops the run, it ends
    /// after its step, with a checkpoint.
    ///
    /// # Errors
    /// The loss is not a number, a file cannot be written, or `observer` stops the run.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Option<Best>, Error> {
        if self.trainer.steps_done() > 0 && !self.validate_and_sample(true, observer)? {
            return Err(Error::Interrupted);
        }
        while !self.trainer.is_over() {
            let ended = self.step(observer);
            if ended.is_err() {
                // The curve up to here says what went wrong; its own failure would hide that.
                let _ = self.draw();
            }
            ended?;
        }
        let Some(best) = self.take_best()? else { return Ok(None) };
        self.metrics.end(best.done, best.stopped, (best.step, best.loss))?;
        match self.options.samples.as_ref() {
            Some(samples) if !self.sample(samples, true, observer)? => Err(Error::Interrupted),
            _ => Ok(Some(best)),
        }
    }

    /// Restores the weights with the lowest validation loss, if the run may end before its last step.
    fn take_best(&mut self) -> Result<Option<Best>, Error> {
        if self.trainer.plan().options.stop == Stop::Off {
            return Ok(None);
        }
        let (done, stopped) = (self.trainer.steps_done(), self.trainer.stops());
        let validations = self.trainer.validations();
        let Some(((step, loss), last)) = stop::best(validations).zip(validations.last().copied()) else {
            return Ok(None);
        };
        if step == done || checkpoint::restore_at(self.dir.path(), step, self.trainer)? {
            return Ok(Some(Best { done, stopped, step, loss, lowest: true }));
        }
        tracing::warn!("the checkpoint of step {step} is missing or damaged: the result is the last weights");
        Ok(Some(Best { done, stopped, step: done, loss: last.1, lowest: false }))
    }

    /// The steps of the whole run.
    fn steps(&self) -> usize {
        self.trainer.plan().steps
    }

    fn step(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let start = Instant::now();
        let report = self.trainer.step()?;
        self.metrics.step(&report, start.elapsed())?;
        let (done, steps) = (self.trainer.steps_done(), self.steps());
        observer.on_step(done, steps, report.loss);
        let complete = self.validate_and_sample(false, observer)?;
        let over = self.trainer.is_over();
        let interrupted = observer.flow().is_break() && (!over || !complete);
        let began = Instant::now();
        let is_due = self.is_due(self.trainer.plan().checkpointing_steps) || self.timer.is_due(began);
        if is_due || over || interrupted {
            checkpoint::save(self.dir.path(), self.trainer, self.options.keep_checkpoints)?;
            self.timer.written(began, Instant::now());
            self.draw()?;
        }
        if interrupted { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Validates and makes samples where the present step asks for them; with `missing`, only those that were cut short
    /// after this step. False where `observer` stops the run now.
    fn validate_and_sample(&mut self, missing: bool, observer: &mut dyn Observer) -> Result<bool, Error> {
        let validate = self.is_due(self.options.validate_every) && !(missing && self.is_validated());
        if validate && self.validate(observer)?.is_none() {
            return Ok(false);
        }
        match self.options.samples.as_ref().filter(|samples| self.is_due(samples.every)) {
            Some(samples) => self.sample(samples, missing, observer),
            None => Ok(true),
        }
    }

    /// Makes the samples of the present weights; with `missing`, unless they are there. False where `observer` stops the run now.
    fn sample(&self, samples: &Samples, missing: bool, observer: &mut dyn Observer) -> Result<bool, Error> {
        let (dir, done) = (self.dir.path(), self.trainer.steps_done());
        if missing && samples.are_made(dir, done) {
            return Ok(true);
        }
        samples.make(&self.trainer.trained_weights(), dir, done, observer)
    }

    /// Whether what is done every so many steps, and at the end, is due after the present step.
    fn is_due(&self, every: usize) -> bool {
        let done = self.trainer.steps_done();
        done.is_multiple_of(every) || done == self.steps()
    }

    /// None where `observer` stops it.
    fn validate(&mut self, observer: &dyn Observer) -> Result<Option<f64>, Error> {
        let loss = self.trainer.validation_loss_unless(&mut || observer.flow());
        let Some(loss) = loss else { return Ok(None) };
        let done = self.trainer.steps_done();
        if !self.metrics.has_validation_at(done) {
            self.metrics.validation(done, loss)?;
        }
        if self.trainer.take_validation(loss) {
            checkpoint::save(self.dir.path(), self.trainer, self.options.keep_checkpoints)?;
        }
        Ok(Some(loss))
    }

    /// Whether the present step has its validation.
    fn is_validated(&self) -> bool {
        let taken = self.trainer.plan().options.stop == Stop::Off || self.trainer.is_validated();
        taken && self.metrics.has_validation_at(self.trainer.steps_done())
    }

    fn draw(&self) -> Result<(), Error> {
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.dir.write("loss.png", &self.metrics.losses(name, self.steps()).chart(CHART).png())
    }
}
