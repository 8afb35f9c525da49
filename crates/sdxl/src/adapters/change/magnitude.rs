//! DoRA: W' = m · V / ‖V‖, where V = W + ΔW and the norm is that of each output's weights, or of each input's
//! (Liu et al. 2024, <https://arxiv.org/abs/2402.09353>).

/// Trained magnitudes.
#[derive(Clone, Debug, PartialEq)]
pub struct Magnitude {
    /// m: one for each output or each input.
    pub values: Vec<f32>,
    /// Whether there is one for each output, as in PEFT and newer LyCORIS.
    pub of_outputs: bool,
    /// The number of positions of a convolution's kernel, or 1.
    pub taps: usize,
}

impl Magnitude {
    /// m · V / ‖V‖. `v` is (out, in · k · k).
    pub(super) fn applied(&self, mut v: Vec<f32>) -> Vec<f32> {
        let (count, taps) = (self.values.len(), self.taps);
        let outputs_size = v.len() / count;
        let group = |at: usize| if self.of_outputs { at / outputs_size } else { at / taps % count };
        let mut squares = vec![0f64; count];
        for (at, x) in v.iter().enumerate() {
            squares[group(at)] += f64::from(*x).powi(2);
        }
        // As in LyCORIS, a norm of zero does not divide.
        let norm = |square: f64| square.sqrt() + f64::from(f32::EPSILON);
        let factors: Vec<f32> = self
            .values
            .iter()
            .zip(squares)
            .map(|(m, square)| (f64::from(*m) / norm(square)) as f32)
            .collect();
        v.iter_mut().enumerate().for_each(|(at, x)| *x *= factors[group(at)]);
        v
    }
}
