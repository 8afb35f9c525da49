//! The learning rate over a run, as diffusers' `get_scheduler` computes it.

use serde::{Deserialize, Serialize};

/// The shape of a learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// Constant, without a warm-up.
    Constant,
    /// Linear up to the full rate over the warm-up steps, then linear down to 0 after the last step.
    Linear,
}

/// The learning-rate schedule of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LrSchedule {
    scheduler: LrScheduler,
    /// Optimizer steps of the warm-up, if the schedule has one.
    warmup: usize,
    /// Optimizer steps of the whole run.
    total: usize,
}

impl LrSchedule {
    /// `scheduler` over `total` optimizer steps.
    pub fn new(scheduler: LrScheduler, warmup: usize, total: usize) -> LrSchedule {
        LrSchedule { scheduler, warmup, total }
    }

    /// The factor of the learning rate at an optimizer step, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        match self.scheduler {
            LrScheduler::Constant => 1.0,
            LrScheduler::Linear => self.linear(step),
        }
    }

    /// Rises from 0 to 1 over the warm-up, then falls to 0 after the last step.
    fn linear(&self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(step);
        left as f64 / self.total.saturating_sub(self.warmup).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;

    /// Protects the rate of each step in the reference's runs, and that a constant rate has no warm-up.
    #[test]
    fn rates_are_the_references() {
        for (name, rate) in [
            ("lora_ti", "lora_lr"),
            ("lora_linear_accumulate_clip_snr_offset_dropout", "lora_lr"),
            ("full_adafactor", "unet_learning_rate"),
        ] {
            let path = format!("{}/../sdxl/tests/golden/training/{name}", env!("CARGO_MANIFEST_DIR"));
            let json = std::fs::read_to_string(format!("{path}.json")).expect("golden file");
            let settings = &serde_json::from_str::<Value>(&json).expect("golden JSON")["settings"];
            let number = |key: &str| settings[key].as_u64().expect(key) as usize;
            let scheduler = serde_json::from_value(settings["lr_scheduler"].clone()).expect("lr_scheduler");
            let schedule = LrSchedule::new(scheduler, number("lr_warmup_steps"), number("max_train_steps"));
            let bytes = std::fs::read(format!("{path}.safetensors")).expect("golden file");
            let file = SafeTensors::deserialize(&bytes).expect("golden file");
            let golden = file.tensor("lr").expect("lr");
            assert_eq!(golden.shape(), [number("max_train_steps")]);
            for (step, bytes) in golden.data().chunks_exact(4).enumerate() {
                let golden = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let ours = (settings[rate].as_f64().expect(rate) * schedule.factor(step)) as f32;
                assert_eq!(ours, golden, "{name}, step {step}");
            }
        }
    }

    /// Protects short runs under the default warm-up: they end before the full rate, and nothing divides by 0.
    #[test]
    fn warm_up_longer_than_the_run() {
        let factors = |warmup, total| {
            let schedule = LrSchedule::new(LrScheduler::Linear, warmup, total);
            [0, 1, 2, 4, 9].map(|step| schedule.factor(step))
        };
        assert_eq!(factors(4, 2), [0.0, 0.25, 0.5, 0.0, 0.0]);
        assert_eq!(factors(2, 2), [0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(factors(0, 4), [1.0, 0.75, 0.5, 0.0, 0.0]);
    }
}
