//! When a checkpoint is due by time, so that a long run whose process dies loses some minutes at most.

use std::time::{Duration, Instant};

/// The least time between two checkpoints, in times that the last took to write: large ones are not written without end.
const LEAST: u32 = 20;

/// Says when a checkpoint is due by time.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointTimer {
    every: Option<Duration>,
    last: Instant,
    took: Duration,
}

impl CheckpointTimer {
    /// A checkpoint is due each time that `every` has passed since the one before, or since `now`. `None`: never.
    pub fn new(every: Option<Duration>, now: Instant) -> CheckpointTimer {
        CheckpointTimer { every, last: now, took: Duration::ZERO }
    }

    /// Whether a checkpoint is due.
    pub fn is_due(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last);
        self.every.is_some_and(|every| passed >= every.max(self.took * LEAST))
    }

    /// A checkpoint was written from `began` to `now`.
    pub fn written(&mut self, began: Instant, now: Instant) {
        (self.last, self.took) = (now, now.saturating_duration_since(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects long runs: a checkpoint is due after the time, however few the steps; one that takes long is written less often, and without a
    /// time none is due.
    #[test]
    fn checkpoints_by_time() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut timer = CheckpointTimer::new(Some(Duration::from_secs(300)), start);
        assert!(!timer.is_due(at(299)) && timer.is_due(at(300)));
        timer.written(at(310), at(320));
        assert!(!timer.is_due(at(619)) && timer.is_due(at(620)));
        timer.written(at(620), at(650));
        assert!(!timer.is_due(at(1249)), "20 times the 30 s that it took");
        assert!(timer.is_due(at(1250)));
        assert!(!CheckpointTimer::new(None, start).is_due(at(1_000_000)));
    }
}
