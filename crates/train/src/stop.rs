//! The end of a training whose validation loss has stopped falling.
//!
//! A training's own loss varies with its random draws, and does not show whether the model still learns. The loss on noise that
//! stays the same does: Voronov et al., "Is This Loss Informative? Faster Text-to-Image Customization by Tracking Objective
//! Dynamics", 2023 (DVAR). They compare the variance of the last of these losses with that of all of them; here their lowest values
//! are compared, so that a loss that rises ends a training too.

use serde::{Deserialize, Serialize};

/// The validations that have to bring the loss down.
const WINDOW: usize = 8;
/// The least of the whole fall that these validations have to bring.
const LEAST: f64 = 0.02;

/// Whether a training may end before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It takes all of its steps, and its result is the weights after the last one.
    #[default]
    Off,
    /// It ends when the validation loss has stopped falling, and its result is the weights with the lowest validation loss.
    Auto,
}

/// A validation loss, and the steps that were done.
pub type Validation = (usize, f64);

/// Whether the loss has stopped falling: the lowest of the last eight validations is less than a fiftieth of the whole fall below
/// the lowest of those before.
pub fn has_stopped_falling(validations: &[Validation]) -> bool {
    let Some(split) = validations.len().checked_sub(WINDOW).filter(|split| *split > 0) else { return false };
    let lowest = |part: &[Validation]| part.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    let (before, now) = (lowest(&validations[..split]), lowest(&validations[split..]));
    let whole = validations[0].1 - before.min(now);
    let falls = before - now > LEAST * whole;
    !falls // also where a loss is not a number
}

/// The first validation with the lowest loss. That before the first step does not count.
pub fn best(validations: &[Validation]) -> Option<Validation> {
    let after = validations.iter().filter(|(step, loss)| *step > 0 && !loss.is_nan());
    after.copied().reduce(|best, next| if next.1 < best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validations(losses: impl IntoIterator<Item = f64>) -> Vec<Validation> {
        losses.into_iter().enumerate().map(|(i, loss)| (10 * i, loss)).collect()
    }

    /// The number of validations after which a training with these losses ends.
    fn ends_after(losses: &[Validation]) -> Option<usize> {
        (0..=losses.len()).find(|&n| has_stopped_falling(&losses[..n]))
    }

    /// Protects the end: not while the loss falls, however slowly and with whatever jumps; soon after it stays, jumps about or
    /// rises; never before there are validations to compare.
    #[test]
    fn a_loss_that_stops_falling() {
        let curve = |f: fn(f64) -> f64| validations((0..40).map(|i| f(f64::from(i))));
        assert_eq!(ends_after(&curve(|i| 1.0 - 0.01 * i)), None, "steady");
        assert_eq!(ends_after(&curve(|i| 1.0 - 0.01 * i + 0.02 * (i % 2.0))), None, "steady, with jumps");
        assert_eq!(ends_after(&curve(|i| if i < 12.0 { 1.0 - 0.05 * i } else { 0.4 })), Some(21), "flat");
        let jumps = curve(|i| if i < 12.0 { 1.0 - 0.05 * i } else { 0.41 + 0.03 * (7.0 * i % 3.0) });
        assert_eq!(ends_after(&jumps), Some(21), "flat, with jumps");
        assert_eq!(ends_after(&curve(|i| (i - 10.0).abs())), Some(19), "rising");
        assert_eq!(ends_after(&curve(|i| 0.1 + (-i / 4.0).exp())), Some(25), "a curve that flattens out");
        assert_eq!(ends_after(&curve(|_| 1.0)), Some(9), "none at all");
        assert_eq!(ends_after(&curve(|i| if i < 3.0 { 1.0 } else { f64::NAN })), Some(9), "no number");
    }

    /// Protects the result: the first of the lowest, and not the model before its training.
    #[test]
    fn the_best_is_the_first_of_the_lowest() {
        assert_eq!(best(&validations([0.1, 0.4, 0.2, 0.3, 0.2])), Some((20, 0.2)));
        assert_eq!(best(&validations([0.1])), None);
        assert_eq!(best(&validations([0.1, f64::NAN, 0.5])), Some((20, 0.5)));
    }
}
