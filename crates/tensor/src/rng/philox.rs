//! torch's CUDA generator: Philox4x32-10, dealt out to values as ATen's kernel does.
//!
//! Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011). A GPU thread owns the subsequence of its
//! index and makes four normals a round (cuRAND's `curand_normal4`), which land one grid apart.
//!
//! Philox's words are exact. The normals are cuRAND's formula in f64, rounded to f32 once; a GPU's own logarithm, sine and
//! cosine differ in the last bits. Values printed by GPUs, to four decimals, are met within 6e-5.

use super::BadState;

const BLOCK_SIZE: u64 = 256;
/// Values a thread makes in one round.
const UNROLL: u64 = 4;
/// 132 multiprocessors of 2,048 threads: an H100.
const H100_THREADS: u64 = 132 * 2048;
const STATE_LEN: usize = 24;

/// `torch.Generator("cuda")`: the values that `torch.randn(…, device="cuda")` gives in f32, but for the last bits: those of
/// a GPU's own logarithm and sine.
///
/// torch starts as many threads as fit on the GPU at once. As long as a draw has no more values than that, every GPU gives
/// the same values. [`new`](Self::new) assumes an H100's 270,336 threads, which holds SDXL latents up to 2048×2048 pixels
/// (4×256×256 values). A smaller GPU gives other values from its own limit on (an RTX 4090 from 196,608, an A100 from
/// 221,184, a T4 from 40,960): [`with_threads`](Self::with_threads) reproduces those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchCuda {
    seed: u64,
    /// Numbers that each thread's subsequence has given so far.
    offset: u64,
    threads: u64,
}

impl TorchCuda {
    /// `generator.manual_seed(seed)` on a large GPU.
    pub fn new(seed: u64) -> TorchCuda {
        TorchCuda::with_threads(seed, H100_THREADS)
    }

    /// `generator.manual_seed(seed)` on a GPU that runs `threads` threads at once: its multiprocessors times the
    /// threads that each holds (rounded down to whole blocks of 256, as torch does; at least one block).
    pub fn with_threads(seed: u64, threads: u64) -> TorchCuda {
        TorchCuda { seed, offset: 0, threads: (threads / BLOCK_SIZE).max(1) * BLOCK_SIZE }
    }

    /// `torch.randn(n)` in f32: `n` values of a standard normal. Each draw continues where the last one ended.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n == 0 {
            return Vec::new();
        }
        let n = n as u64;
        let grid = (n.div_ceil(BLOCK_SIZE) * BLOCK_SIZE).min(self.threads);
        let rounds = n.div_ceil(grid * UNROLL);
        let mut values = vec![0.0; n as usize];
        for round in 0..rounds {
            for thread in 0..grid {
                let start = round * grid * UNROLL + thread;
                if start >= n {
                    break;
                }
                let normals = self.normal4(thread, round);
                for (i, value) in (start..n).step_by(grid as usize).zip(normals) {
                    values[i as usize] = value;
                }
            }
        }
        self.offset = self.offset.wrapping_add(rounds * UNROLL);
        values
    }

    /// The generator as bytes, for [`from_state`](Self::from_state).
    pub fn state(&self) -> Vec<u8> {
        [self.seed, self.offset, self.threads].iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// The generator that [`state`](Self::state) saved.
    ///
    /// # Errors
    /// If the bytes have another length, or a position that no draw leaves.
    pub fn from_state(bytes: &[u8]) -> Result<TorchCuda, BadState> {
        let bad = |found: String| BadState {
            generator: "TorchCuda",
            expected: "24 bytes: seed, offset, threads",
            found,
        };
        if bytes.len() != STATE_LEN {
            return Err(bad(format!("{} bytes", bytes.len())));
        }
        let mut numbers = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(std::array::from_fn(|i| b[i])));
        let [seed, offset, threads] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        if !offset.is_multiple_of(UNROLL) || threads == 0 || !threads.is_multiple_of(BLOCK_SIZE) {
            return Err(bad(format!("offset {offset}, threads {threads}")));
        }
        Ok(TorchCuda { seed, offset, threads })
    }

    /// cuRAND's `curand_normal4` for one thread, `round` calls after the current offset.
    fn normal4(&self, thread: u64, round: u64) -> [f32; 4] {
        let counter = (self.offset / UNROLL).wrapping_add(round);
        let words = philox4x32_10(
            [counter as u32, (counter >> 32) as u32, thread as u32, (thread >> 32) as u32],
            [self.seed as u32, (self.seed >> 32) as u32],
        );
        let [a, b] = box_muller(words[0], words[1]);
        let [c, d] = box_muller(words[2], words[3]);
        [a, b, c, d]
    }
}

/// Two words to cuRAND's uniform in 0..1 and its angle in 0..2π. A fused multiply-add rounds each once, as nvcc compiles
/// the product and the sum.
fn uniform_and_angle(x: u32, y: u32) -> (f32, f32) {
    const INV: f32 = 1.0 / 4_294_967_296.0;
    const INV_TAU: f32 = INV * std::f32::consts::TAU;
    ((x as f32).mul_add(INV, INV / 2.0), (y as f32).mul_add(INV_TAU, INV_TAU / 2.0))
}

/// Two words to two normals: cuRAND's formula, whose first value is the sine's.
fn box_muller(x: u32, y: u32) -> [f32; 2] {
    let (u, v) = uniform_and_angle(x, y);
    let radius = (-2.0 * f64::from(u).ln()).max(0.0).sqrt();
    let (sin, cos) = f64::from(v).sin_cos();
    [(radius * sin) as f32, (radius * cos) as f32]
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rounds and constants of Philox: the published known-answer vectors of Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox4x32_10(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// The angle is rounded once: where two roundings give another one, and over 200,000 words (the sum of the bits that
    /// `tools/reference/golden/philox.py` gives).
    #[test]
    fn angles_round_once() {
        let angle = |word: u32| u64::from(uniform_and_angle(0, word).1.to_bits());
        for (word, bits) in [(0, 0x3049_0fdb), (0x8441_b1d3, 0x404f_bf8c), (u32::MAX, 0x40c9_0fdb)] {
            assert_eq!(angle(word), bits, "word {word:#x}");
        }
        let sum: u64 = (0..200_000u32).map(|i| angle(i.wrapping_mul(2_654_435_761))).sum();
        assert_eq!(sum, 0xc38a_1548_4fd7);
    }

    /// A draw with more values than threads: rounds and the four normals of each thread land where torch puts them.
    #[test]
    fn threads_stride_over_values() {
        let mut narrow = TorchCuda::with_threads(7, 256);
        let values = narrow.randn(1500);
        let reference = TorchCuda::with_threads(7, 256);
        for (i, value) in values.iter().enumerate() {
            let (round, rest) = (i / 1024, i % 1024);
            assert_eq!(*value, reference.normal4((rest % 256) as u64, round as u64)[rest / 256], "value {i}");
        }
        assert_eq!(narrow.offset, 8, "two rounds of four numbers");
    }
}
