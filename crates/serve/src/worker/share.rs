//! When a training rests: while a prediction computes, but not for ever.

use std::time::{Duration, Instant};

/// How much longer than it has computed a training rests.
const PATIENCE: Duration = Duration::from_secs(600);

/// The times in which a training has rested and computed. Where predictions come without a break, the training rests and computes in
/// turns.
pub struct Share {
    at: Instant,
    /// By how much the training has rested longer than it has computed.
    debt: Duration,
    rests: bool,
    /// Whether the training computes now, until its debt is paid.
    is_paid: bool,
}

impl Share {
    pub fn new(now: Instant) -> Share {
        Share { at: now, debt: Duration::ZERO, rests: false, is_paid: false }
    }

    /// Whether the training rests from now on. `busy`: a prediction computes.
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
