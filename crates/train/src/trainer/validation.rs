//! The validation loss: a training's own loss swings with its draws; this one draws the same each time, so that it shows
//! whether anything is learnt.

use std::ops::ControlFlow;

use super::Trainer;
use super::draw::Draw;
use super::stream::{Purpose, stream};
use calotype_sdxl::channels_last;

/// How many samples it is the mean of.
pub(crate) const SAMPLES: usize = 8;

impl Trainer {
    /// The mean loss of eight samples, one after the other, as it is now: the pictures in their order (from the first again
    /// where there are fewer), each with its mask, at timesteps spread evenly over the model's, with numbers of their own. No
    /// caption is left out, no timestep weighs more than another, and the noise has no offset.
    ///
    /// It changes nothing: a training goes on as if it had not been asked.
    pub fn validation_loss(&mut self) -> f64 {
        // Nothing breaks.
        self.validation_loss_unless(&mut || ControlFlow::Continue(())).unwrap_or(f64::NAN)
    }

    /// [`Self::validation_loss`], or none where `before_sample` breaks before one of the samples.
    pub fn validation_loss_unless(
        &mut self,
        before_sample: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Option<f64> {
        self.record(false);
        let mut total = Some(0.0);
        for i in 0..SAMPLES {
            total = total.filter(|_| before_sample().is_continue());
            let Some(sum) = &mut total else { break };
            *sum += self.sample_loss(i);
        }
        self.record(true);
        total.map(|total| total / SAMPLES as f64)
    }

    /// Whether what trains is on the tape.
    fn record(&self, on: bool) {
        self.trained().iter().for_each(|trained| trained.parameter.record(on));
    }

    fn sample_loss(&mut self, i: usize) -> f64 {
        let (examples, shape, timesteps) = self.sizes();
        let item = i % examples;
        let mut generator = stream(self.plan().seed, Purpose::Validation, i as u64);
        let mut images = || channels_last(&generator.randn(shape.iter().product()), shape);
        let draw = Draw {
            eps: images(),
            noise: images(),
            timesteps: vec![(2 * i + 1) * timesteps / (2 * SAMPLES)],
            dropped: vec![false],
            min_snr_gamma: None,
        };
        self.loss(&[item], &[Some(item)], &draw)
    }
}
