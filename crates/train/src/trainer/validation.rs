//! The validation loss. A training loss varies with its random draws. The validation loss uses the same draws each time, so it
//! shows whether the model learns.

use std::ops::ControlFlow;

use super::Trainer;
use super::draw::Draw;
use super::stream::{Purpose, stream};
use calotype_sdxl::channels_last;

/// The number of samples in the mean.
pub(crate) const SAMPLES: usize = 8;

impl Trainer {
    /// The mean loss of eight samples at the current weights, one sample after the other. Samples take the pictures in order
    /// (again from the first if there are fewer than eight), with their masks, at timesteps spread evenly over the model's, and
    /// with random numbers of their own. Captions are always kept, timesteps have equal weights, and the noise has no offset.
    ///
    /// The training's state does not change.
    pub fn validation_loss(&mut self) -> f64 {
        // The callback never breaks.
        self.validation_loss_unless(&mut || ControlFlow::Continue(())).unwrap_or(f64::NAN)
    }

    /// [`Self::validation_loss`], or `None` if `before_sample` breaks before one of the samples.
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

    /// Puts all trained parameters on the tape, or takes them off.
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
