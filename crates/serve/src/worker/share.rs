//! When a job rests: while others compute that somebody waits for, but not for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::job::Kind;

/// How much longer than it has computed a job rests.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many jobs compute now that others rest for.
#[derive(Default)]
pub struct Computing {
    predictions: AtomicUsize,
    preparations: AtomicUsize,
}

impl Computing {
    /// One more job of the kind computes, until the result is dropped.
    pub fn begin(&self, kind: Kind) -> Computes<'_> {
        let count = match kind {
            Kind::Prediction => Some(&self.predictions),
            Kind::Preparation => Some(&self.preparations),
            Kind::Training => None,
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Computes(count)
    }

    /// Whether a job computes that one of the kind rests for: trainings rest for all others, preparations for predictions.
    pub fn is_before(&self, kind: Kind) -> bool {
        let any = |count: &AtomicUsize| count.load(Ordering::SeqCst) > 0;
        match kind {
            Kind::Prediction => false,
            Kind::Preparation => any(&self.predictions),
            Kind::Training => any(&self.predictions) || any(&self.preparations),
        }
    }
}

/// A job that computes.
pub struct Computes<'a>(Option<&'a AtomicUsize>);

impl Drop for Computes<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The times in which a job has rested and computed. Where others come without a break, the job rests and computes in turns.
pub struct Share {
    at: Instant,
    /// By how much the job has rested longer than it has computed.
    debt: Duration,
    rests: bool,
    /// Whether the job computes now, until its debt is paid.
    is_paid: bool,
}

impl Share {
    pub fn new(now: Instant) -> Share {
        Share { at: now, debt: Duration::ZERO, rests: false, is_paid: false }
    }

    /// Whether the job rests from now on. `busy`: another computes that it rests for.
    pub fn rests(&mut self, busy: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.debt = if self.rests { self.debt + passed } else { self.debt.saturating_sub(passed) };
        if self.debt >= PATIENCE {
            self.is_paid = true;
        }
        if self.debt.is_zero() {
            self.is_paid = false;
        }
        self.rests = busy && !self.is_paid;
        self.rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects people who wait: a training rests for predictions and preparations, a preparation for predictions, and nothing rests for a
    /// training.
    #[test]
    fn who_rests() {
        let computing = Computing::default();
        let rests = || Kind::ALL.map(|kind| computing.is_before(kind));
        let training = computing.begin(Kind::Training);
        assert_eq!(rests(), [false, false, false]);
        let preparation = computing.begin(Kind::Preparation);
        assert_eq!(rests(), [false, true, false]);
        let prediction = computing.begin(Kind::Prediction);
        drop(preparation);
        assert_eq!(rests(), [false, true, true]);
        drop((prediction, training));
        assert_eq!(rests(), [false, false, false]);
    }

    /// Protects trainings from predictions without end: the training rests for the first, then both take turns.
    #[test]
    fn turns() {
        let start = Instant::now();
        let mut share = Share::new(start);
        let mut at = |seconds: u64, busy: bool| share.rests(busy, start + Duration::from_secs(seconds));
        assert!(!at(0, false));
        assert!(at(100, true));
        assert!(!at(160, false), "nothing computes: the training goes on");
        assert!(at(200, true), "the debt is small");
        assert!(at(700, true));
        assert!(!at(900, true), "it has rested for long enough");
        assert!(!at(1400, true));
        assert!(at(1700, true), "the debt is paid");
    }
}
