//! Sums of squares, in f64.

use rayon::prelude::*;

/// Values per task. Sums are over pieces of this length, so it affects the results.
pub(super) const GRAIN: usize = 1 << 14;

/// Σ x².
pub(in crate::cpu) fn squared_norm(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values.par_chunks(GRAIN).map(sum_squares).collect();
    sums.iter().sum()
}

/// Σ x² in one task. Eight alternating sums are faster than one.
pub(super) fn sum_squares(values: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let mut sums = [0.0; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += square(*x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| square(*x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the norm across pieces and at their remainders.
    #[test]
    fn squared_norms() {
        for n in [0, 1, 7, 8, 9, GRAIN, GRAIN + 1, 3 * GRAIN + 5] {
            let values: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
            let expected: f64 = (0..n).map(|i| ((i % 7) * (i % 7)) as f64).sum();
            assert_eq!(squared_norm(&values), expected, "{n} values");
        }
        assert_eq!(squared_norm(&[1e30]), f64::from(1e30_f32).powi(2), "squares need not fit f32");
    }
}
