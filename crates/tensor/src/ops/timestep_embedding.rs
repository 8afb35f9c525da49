//! Sinusoidal embeddings of numbers: timesteps, and SDXL's sizes and crops.

use crate::memory::Device;
use crate::tensor::Tensor;

/// Wavelengths go from 2π to 2π · this.
const MAX_PERIOD: f64 = 10_000.0;

/// cos and sin of t at dim / 2 frequencies, f32, on a device: t → (t.len(), dim), diffusers' `get_timestep_embedding`.
///
/// Sines come first, cosines first with `flip_sin_to_cos` (as in SDXL). Frequency i is 10000 to the power of
/// −i / (dim / 2 − downscale_freq_shift). An odd `dim` ends in a zero.
pub fn timestep_embedding(
    t: &[f32],
    dim: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f32,
    device: Device,
) -> Tensor {
    let half = dim / 2;
    // Each step rounds to f32, as diffusers' does: at t = 1000 the argument's last bit shows in the result.
    let frequency = |i: usize| {
        let exponent = -MAX_PERIOD.ln() as f32 * i as f32 / (half as f32 - downscale_freq_shift);
        f64::from(exponent).exp() as f32
    };
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut values = Vec::with_capacity(t.len() * dim);
    for &t in t {
        let angles = frequencies.iter().map(|f| f64::from(t * f));
        let sin = angles.clone().map(|angle| angle.sin() as f32);
        let cos = angles.map(|angle| angle.cos() as f32);
        match flip_sin_to_cos {
            true => values.extend(cos.chain(sin)),
            false => values.extend(sin.chain(cos)),
        }
        values.extend(std::iter::repeat_n(0.0, dim % 2));
    }
    device.upload(&values, &[t.len(), dim])
}
