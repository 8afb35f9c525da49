//! Noisy latents, the targets of the UNet's predictions, and the loss weight of each timestep.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020), with the arithmetic of diffusers'
//! `DDPMScheduler` in f32.

use calotype_tensor::Tensor;

use calotype_sdxl::samplers::{Prediction, ScheduleError, SchedulerConfig, TrainingSchedule};

/// The noise schedule and the prediction type of a network's training.
///
/// Tensors are f32, with the batch as the first dimension and any layout behind it. Each sample has its own timestep.
#[derive(Debug, Clone)]
pub struct DdpmNoise {
    training: TrainingSchedule,
}

impl DdpmNoise {
    /// Reads the betas and the `prediction_type` of the folder's `scheduler_config.json`. The betas are rescaled to zero
    /// terminal SNR if the file asks for that.
    ///
    /// # Errors
    /// If a field is invalid or asks for something unsupported.
    pub fn new(config: &SchedulerConfig) -> Result<DdpmNoise, ScheduleError> {
        Ok(DdpmNoise { training: TrainingSchedule::read(config)? })
    }

    /// ᾱ of each training timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.training.alphas_cumprod
    }

    /// The noisy latents, √ᾱ·z + √(1−ᾱ)·ε.
    ///
    /// # Panics
    /// If there are no samples, the shapes differ, the first dimension is not the number of timesteps, or a timestep is out of
    /// the model's range.
    pub fn add_noise(&self, latents: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Tensor {
        self.blend(latents, noise, timesteps, |signal, level| (signal, level))
    }

    /// The target of the network's prediction: ε, or v = √ᾱ·ε − √(1−ᾱ)·z.
    ///
    /// # Panics
    /// As [`add_noise`](Self::add_noise) does.
    pub fn target(&self, latents: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Tensor {
        match self.training.prediction {
            Prediction::V => self.blend(latents, noise, timesteps, |signal, level| (-level, signal)),
            _ => noise.clone(),
        }
    }

    /// The signal-to-noise ratio at a timestep, ᾱ / (1 − ᾱ).
    ///
    /// # Panics
    /// If the timestep is out of the model's range.
    pub fn snr(&self, timestep: usize) -> f64 {
        let alpha_bar = f64::from(self.training.alphas_cumprod[timestep]);
        alpha_bar / (1.0 - alpha_bar)
    }

    /// The factor of a sample's loss. Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023):
    /// min(snr, γ) / snr for ε. For v, whose loss already weighs by snr + 1: min(snr, γ) / (snr + 1).
    ///
    /// # Panics
    /// As [`snr`](Self::snr) does.
    pub fn min_snr_weight(&self, timestep: usize, gamma: f64) -> f64 {
        let snr = self.snr(timestep);
        match self.training.prediction {
            Prediction::V => snr.min(gamma) / (snr + 1.0),
            _ if snr <= gamma => 1.0, // also for snr 0, where there is no signal
            _ => gamma / snr,
        }
    }

    /// a·z + b·ε for each sample, where `factors` maps (√ᾱ, √(1−ᾱ)) to (a, b).
    fn blend(
        &self,
        latents: &Tensor,
        noise: &Tensor,
        timesteps: &[usize],
        factors: fn(f32, f32) -> (f32, f32),
    ) -> Tensor {
        assert_eq!(latents.shape(), noise.shape(), "latents and noise");
        assert_eq!(latents.dim(0), timesteps.len(), "a timestep for each sample");
        let size = latents.numel() / timesteps.len();
        let samples = latents.f32s().chunks_exact(size).zip(noise.f32s().chunks_exact(size));
        let blended = samples.zip(timesteps).flat_map(|((z, epsilon), &t)| {
            let alpha_bar = self.training.alphas_cumprod[t];
            let (a, b) = factors(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
            z.iter().zip(epsilon).map(move |(z, epsilon)| a * z + b * epsilon)
        });
        Tensor::from_vec(blended.collect(), latents.shape())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn golden(name: &str) -> Vec<u8> {
        let path = format!("{}/../sdxl/tests/golden/training/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("golden file")
    }

    fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("golden tensor {name}"));
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn timesteps(file: &SafeTensors) -> Vec<usize> {
        let data = file.tensor("timesteps").expect("timesteps").data();
        data.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect()
    }

    /// The golden files' (B, C, h, w) as (B, h, w, C).
    fn images(file: &SafeTensors, name: &str) -> Tensor {
        let shape = file.tensor(name).expect("golden tensor").shape().to_vec();
        let &[b, c, h, w] = shape.as_slice() else { panic!("{name}: {shape:?}") };
        let values = floats(file, name);
        let mut out = Vec::with_capacity(values.len());
        for i in 0..b * h * w * c {
            let (sample, pixel, channel) = (i / (h * w * c), i / c % (h * w), i % c);
            out.push(values[(sample * c + channel) * h * w + pixel]);
        }
        Tensor::from_vec(out, &[b, h, w, c])
    }

    fn noise(options: &str) -> DdpmNoise {
        let text = format!(
            r#"{{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012{options}}}"#
        );
        let config = SchedulerConfig::parse("scheduler_config.json", &text).expect("JSON");
        DdpmNoise::new(&config).expect("valid")
    }

    fn close(what: &str, ours: &[f32], golden: &[f32]) {
        assert_eq!(ours.len(), golden.len(), "{what}");
        let off = ours.iter().zip(golden).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        assert!(off <= 1e-6, "{what}: differs by {off:e}");
    }

    /// Protects the first micro-step of a run on SDXL's betas.
    #[test]
    fn first_step() {
        let bytes = golden("first_step");
        let file = SafeTensors::deserialize(&bytes).expect("golden file");
        let (latents, epsilon, timesteps) =
            (images(&file, "latents"), images(&file, "noise"), timesteps(&file));
        let ours = noise("");
        close("noisy", ours.add_noise(&latents, &epsilon, &timesteps).f32s(), images(&file, "noisy").f32s());
        close("target", ours.target(&latents, &epsilon, &timesteps).f32s(), images(&file, "target").f32s());
    }

    /// Protects the effects of the configuration, from the first timestep to the last: v, zero terminal SNR and min-SNR weights.
    #[test]
    fn configurations() {
        let bytes = golden("noise");
        let file = SafeTensors::deserialize(&bytes).expect("golden file");
        let (latents, epsilon, timesteps) =
            (images(&file, "latents"), images(&file, "noise"), timesteps(&file));
        for (name, options) in [
            ("epsilon", ""),
            ("v", r#", "prediction_type": "v_prediction""#),
            ("v_zero_snr", r#", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true"#),
        ] {
            let ours = noise(options);
            let noisy = ours.add_noise(&latents, &epsilon, &timesteps);
            close(&format!("{name}.noisy"), noisy.f32s(), images(&file, &format!("{name}.noisy")).f32s());
            let target = ours.target(&latents, &epsilon, &timesteps);
            close(&format!("{name}.target"), target.f32s(), images(&file, &format!("{name}.target")).f32s());
            let weights: Vec<f32> = timesteps.iter().map(|t| ours.min_snr_weight(*t, 5.0) as f32).collect();
            close(&format!("{name}.weights"), &weights, &floats(&file, &format!("{name}.weights")));
        }
    }

    /// Protects the loss from 0/0, where a rescaled schedule leaves no signal to a network that predicts ε.
    #[test]
    fn no_signal_has_a_weight() {
        let ours = noise(r#", "rescale_betas_zero_snr": true"#);
        assert_eq!((ours.snr(999), ours.min_snr_weight(999, 5.0)), (0.0, 1.0));
    }

    /// Protects users from training a model on a target that the model was not made for.
    #[test]
    fn other_predictions_are_refused() {
        let config = SchedulerConfig::parse("s.json", r#"{"prediction_type": "sample"}"#).expect("JSON");
        assert_eq!(
            DdpmNoise::new(&config).expect_err("not supported").to_string(),
            r#"s.json: prediction_type: expected epsilon, v_prediction, found "sample""#
        );
    }
}
