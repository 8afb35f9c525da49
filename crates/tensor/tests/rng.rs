//! The generators against values that PyTorch printed.
#![allow(clippy::excessive_precision)] // the values are quoted as printed

use calotype_tensor::rng::{TorchCpu, TorchCuda};

fn close(ours: &[f32], torch: &[f32]) {
    assert_eq!(ours.len(), torch.len());
    for (i, (a, b)) in ours.iter().zip(torch).enumerate() {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "value {i}: expected {b}, found {a}");
    }
}

fn same_bits(ours: &[f32], reference: &[f32]) {
    assert_eq!(ours.len(), reference.len());
    for (i, (a, b)) in ours.iter().zip(reference).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "value {i}: expected {b}, found {a}");
    }
}

/// Protects the seed, the scalar path, the normal that an odd draw leaves behind, the block path's recomputed tail, and
/// that all of them share one stream: seed 42, then the calls in torch's order.
#[test]
fn cpu_stream() {
    let mut rng = TorchCpu::new(42);
    close(&rng.randn(5), &[0.336690366, 0.128809407, 0.234462366, 0.23033303, -1.12285638]);
    close(&rng.randn(4), &[-0.186328292, 2.20820141, -0.637997031, 0.461657226]);
    #[rustfmt::skip]
    close(&rng.randn(21), &[
        -0.758131146, 1.07831764, 0.800800562, 1.68062055, 0.355859905, 0.321103007, 1.57360017, -0.845467448, 1.3123076,
        0.687159598, -1.08917534, -0.355286628, -0.913823009, 0.896268308, 0.0499053858, 2.26671791, 1.17895091,
        -0.434454411, -1.38636553, -1.28621554, -1.40324783,
    ]);
    assert_eq!(rng.randint(0, 1000, 6), [384, 978, 908, 266, 630, 540]);
    assert_eq!(rng.randint(-5, 1 << 28, 4), [107855201, 54498360, 115934457, 248425141]);
    assert_eq!(rng.randint(0, (1 << 28) - 1, 4), [44738559, 234564364, 68574553, 151063093]);
    assert_eq!(rng.randint(0, (1 << 40) + 5, 3), [556970170892, 392712245814, 803625718271]);
    assert_eq!(rng.randperm(10), [1, 3, 9, 7, 6, 2, 4, 5, 0, 8]);
    close(&rng.rand(3), &[0.6057037711143494, 0.3725206255912781, 0.7980347275733948]);
}

/// Protects the truncation of seeds: torch's Mersenne Twister sees 32 bits, Philox all 64.
#[test]
fn seeds() {
    assert_eq!(TorchCpu::new(7).randn(20), TorchCpu::new(7 + (1 << 32)).randn(20));
    assert_ne!(TorchCuda::new(7).randn(20), TorchCuda::new(7 + (1 << 32)).randn(20));
}

/// Protects Philox's counter layout and cuRAND's Box-Muller: `torch.randn(3, 4, device="cuda")`, seed 0.
#[test]
fn cuda_values() {
    #[rustfmt::skip]
    close(&TorchCuda::new(0).randn(12), &[
        -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
        -1.07454231, -0.36314407, -1.67105067, 2.26550497,
    ]);
}

/// Protects which GPUs agree: a value depends on its index alone as long as the draw fits on the GPU, and no longer.
#[test]
fn cuda_latents_of_large_pictures() {
    let latents = TorchCuda::new(3).randn(4 * 256 * 256);
    assert_eq!(latents[..65_536], TorchCuda::new(3).randn(65_536), "2048 and 1024 pixels start alike");
    assert_eq!(
        latents[..65_536],
        TorchCuda::with_threads(3, 108 * 2048).randn(65_536),
        "an A100 at 1024 pixels"
    );
    assert_ne!(
        latents,
        TorchCuda::with_threads(3, 108 * 2048).randn(latents.len()),
        "an A100 at 2048 pixels"
    );
}

/// Protects resuming: a restored generator continues the stream, also between the two normals of a pair.
#[test]
fn state_round_trip() {
    let mut rng = TorchCpu::new(1);
    rng.randn(3);
    let mut restored = TorchCpu::from_state(&rng.state()).expect("own state");
    assert_eq!(restored.randn(5), rng.randn(5));
    assert_eq!(restored.randn(1000), rng.randn(1000));

    let mut rng = TorchCuda::new(1);
    rng.randn(3);
    let mut restored = TorchCuda::from_state(&rng.state()).expect("own state");
    assert_eq!(restored.randn(5), rng.randn(5));
}

/// Protects the loader of checkpoints: a damaged state is an error, not a panic or another stream.
#[test]
fn damaged_states() {
    let mut state = TorchCpu::new(1).state();
    assert_eq!(
        TorchCpu::from_state(&state[1..]).expect_err("short").to_string(),
        "TorchCpu state: expected 2509 bytes of MT19937 state, found 2508 bytes"
    );
    state[4 * 624 + 1] = 0xff;
    assert!(TorchCpu::from_state(&state).is_err(), "position past the block");
    assert!(TorchCuda::from_state(&[0; 24]).is_err(), "no threads");
    assert!(TorchCuda::from_state(&[]).is_err());
}

/// A golden file: tensors by name.
struct Golden(Vec<u8>);

impl Golden {
    fn rng() -> Golden {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rng.safetensors");
        Golden(std::fs::read(path).expect("golden file"))
    }

    fn words(&self, name: &str) -> Vec<u32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).expect("golden file");
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("golden tensor {name}"));
        tensor.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_bits).collect()
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        self.words(name).into_iter().map(|w| i64::from(w as i32)).collect()
    }
}

const SEEDS: [u64; 4] = [0, 1, 42, 1_234_567_890_123];
const SEQUENCE: [usize; 5] = [5, 20, 3, 16, 17];

/// Protects every path of the CPU generator at several seeds, one wider than 32 bits.
#[test]
fn cpu_golden() {
    let golden = Golden::rng();
    for seed in SEEDS {
        for n in [1, 7, 15, 16, 17, 33, 100, 1000] {
            close(&TorchCpu::new(seed).randn(n), &golden.floats(&format!("cpu.randn.{seed}.{n}")));
        }
        let mut rng = TorchCpu::new(seed);
        for (i, n) in SEQUENCE.into_iter().enumerate() {
            close(&rng.randn(n), &golden.floats(&format!("cpu.sequence.{seed}.{i}")));
        }
        close(&TorchCpu::new(seed).randn(4 * 6 * 8), &golden.floats(&format!("cpu.latents.{seed}")));
        assert_eq!(TorchCpu::new(seed).rand(33), golden.floats(&format!("cpu.rand.{seed}")));
        assert_eq!(TorchCpu::new(seed).randint(0, 1000, 33), golden.ints(&format!("cpu.randint1000.{seed}")));
        let order: Vec<i64> = TorchCpu::new(seed).randperm(37).into_iter().map(|i| i as i64).collect();
        assert_eq!(order, golden.ints(&format!("cpu.randperm37.{seed}")));
        let mut rng = TorchCpu::new(seed);
        close(&rng.rand(3), &golden.floats(&format!("cpu.mixed.{seed}.0_rand3")));
        close(&rng.randn(3), &golden.floats(&format!("cpu.mixed.{seed}.1_randn3")));
        assert_eq!(rng.randint(0, 7, 2), golden.ints(&format!("cpu.mixed.{seed}.2_randint2")));
        close(&rng.randn(16), &golden.floats(&format!("cpu.mixed.{seed}.3_randn16")));
    }
    close(&TorchCpu::new(42).randn(5000)[4960..], &golden.floats("cpu.long.42.tail"));
}

/// Protects the CUDA generator bit for bit against the reference in numpy, at several seeds and from draw to draw; and within
/// the printed decimals against what real GPUs printed.
#[test]
fn cuda_golden() {
    let golden = Golden::rng();
    for seed in SEEDS {
        for n in [7, 33, 1000] {
            same_bits(&TorchCuda::new(seed).randn(n), &golden.floats(&format!("cuda.randn.{seed}.{n}")));
        }
        let mut rng = TorchCuda::new(seed);
        for (i, n) in SEQUENCE.into_iter().enumerate() {
            same_bits(&rng.randn(n), &golden.floats(&format!("cuda.sequence.{seed}.{i}")));
        }
    }
    let printed = |ours: &[f32], torch: &[f32]| {
        assert_eq!(ours.len(), torch.len());
        assert!(
            ours.iter().zip(torch).all(|(a, b)| (a - b).abs() < 6e-5),
            "expected {torch:?}, found {ours:?}"
        );
    };
    for seed in [0, 42] {
        let torch = golden.floats(&format!("cuda.printed.{seed}"));
        printed(&TorchCuda::new(seed).randn(torch.len()), &torch);
    }
    let mut rng = TorchCuda::new(42);
    rng.randn(4);
    let next: Vec<f32> = (0..3).flat_map(|_| rng.randn(4)).collect();
    printed(&next, &golden.floats("cuda.printed_next.42"));
}
