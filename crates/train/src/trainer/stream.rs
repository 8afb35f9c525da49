//! The random numbers of a run. Each use has its own generator, so no result depends on earlier draws. A run that continues
//! from a checkpoint needs no generator state.

use calotype_tensor::rng::TorchCpu;

/// The use of a random number generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The initial values of a new parameter; the index tells parameters apart.
    Init,
    /// The order of the examples in an epoch.
    Order,
    /// The draws of a micro-step.
    Step,
    /// The draws of a validation.
    Validation,
}

/// The generator for use number `index` of a purpose.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> TorchCpu {
    TorchCpu::new(mix(seed, purpose, index))
}

/// The examples of micro-step `micro_step`, counted from 0 over the whole run. The orders of all epochs are joined and cut into
/// pieces of `size`, so a batch may cross the end of an epoch.
///
/// # Panics
/// If there are no examples.
pub fn batch(seed: u64, examples: usize, size: usize, micro_step: u64) -> Vec<usize> {
    let start = micro_step * size as u64;
    let first_epoch = start / examples as u64;
    let orders = (first_epoch..).flat_map(|epoch| stream(seed, Purpose::Order, epoch).randperm(examples));
    orders.skip((start % examples as u64) as usize).take(size).collect()
}

/// A 32-bit seed for each (seed, purpose, index); torch takes 32 bits only. Each part is hashed before the next is mixed in, so
/// that the streams of neighbouring seeds are unrelated.
fn mix(seed: u64, purpose: Purpose, index: u64) -> u64 {
    splitmix64(splitmix64(splitmix64(seed) ^ purpose as u64) ^ index) & 0xffff_ffff
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
fn splitmix64(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const PURPOSES: [Purpose; 4] = [Purpose::Init, Purpose::Order, Purpose::Step, Purpose::Validation];

    #[derive(Deserialize)]
    struct Random {
        mix: Vec<Mixed>,
        draws: Vec<Draws>,
    }

    #[derive(Deserialize)]
    struct Mixed {
        seed: u64,
        purpose: usize,
        index: u64,
        value: u64,
    }

    #[derive(Deserialize)]
    struct Draws {
        seed: u64,
        purpose: usize,
        index: u64,
        randperm5: Vec<usize>,
        randperm37: Vec<usize>,
        randint1000: Vec<i64>,
        rand4: Vec<f32>,
        randn6: Vec<f32>,
        randn40: Vec<f32>,
    }

    #[derive(Deserialize)]
    struct Case {
        settings: CaseSettings,
        items: Vec<Vec<usize>>,
    }

    #[derive(Deserialize)]
    struct CaseSettings {
        seed: u64,
        train_batch_size: usize,
    }

    fn golden<T: for<'de> Deserialize<'de>>(name: &str) -> T {
        let path = format!("{}/../sdxl/tests/golden/training/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("golden file")).expect("golden JSON")
    }

    fn close(ours: &[f32], torch: &[f32]) {
        assert_eq!(ours.len(), torch.len());
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(ours.iter().zip(torch).all(near), "expected {torch:?}, found {ours:?}");
    }

    /// Protects the meaning of a seed: each stream begins where the reference's does, and each draw is torch's.
    #[test]
    fn streams_are_the_references() {
        let golden: Random = golden("random");
        assert_eq!(golden.mix.len(), 42);
        for m in golden.mix {
            assert_eq!(mix(m.seed, PURPOSES[m.purpose], m.index), m.value, "{} {}", m.seed, m.index);
        }
        assert_eq!(golden.draws.len(), 3);
        for d in golden.draws {
            let rng = || stream(d.seed, PURPOSES[d.purpose], d.index);
            assert_eq!(rng().randperm(5), d.randperm5);
            assert_eq!(rng().randperm(37), d.randperm37);
            assert_eq!(rng().randint(0, 1000, 8), d.randint1000);
            assert_eq!(rng().rand(4), d.rand4);
            close(&rng().randn(6), &d.randn6);
            close(&rng().randn(40), &d.randn40);
        }
    }

    /// Protects which pictures a micro-step sees, over epochs whose length the batch does not divide.
    #[test]
    fn batches_are_the_references() {
        for name in ["lora_ti", "lora_linear_accumulate_clip_snr_offset_dropout", "full_adafactor"] {
            let case: Case = golden(name);
            let CaseSettings { seed, train_batch_size } = case.settings;
            for (m, items) in case.items.iter().enumerate() {
                assert_eq!(&batch(seed, 5, train_batch_size, m as u64), items, "{name}, micro-step {m}");
            }
        }
    }

    /// Protects batches larger than the set: whole epochs follow one another.
    #[test]
    fn a_batch_may_hold_several_epochs() {
        let epochs = |range: std::ops::Range<u64>| -> Vec<usize> {
            range.flat_map(|e| stream(9, Purpose::Order, e).randperm(3)).collect()
        };
        assert_eq!(batch(9, 3, 7, 0), epochs(0..3)[..7]);
        assert_eq!(batch(9, 3, 7, 1), epochs(2..5)[1..8]);
        assert_eq!(batch(9, 1, 2, 1 << 40), [0, 0]);
    }
}
