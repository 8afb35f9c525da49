//! torch's CPU generator: MT19937 and the distributions that ATen draws from it.
//!
//! Matsumoto and Nishimura, "Mersenne Twister" (1998). The distributions follow ATen's `DistributionsHelper.h` and
//! `cpu/DistributionTemplates.h`, and permutations `randperm_cpu` in its `TensorFactories.cpp`; the order of draws is part
//! of what a seed means.

use super::BadState;

const N: usize = 624;
const M: usize = 397;
/// From this many values on `torch.randn` fills blocks of 16 with f32 pairs; below, it draws f64 normals one by one.
const BLOCK: usize = 16;
const STATE_LEN: usize = 4 * N + 4 + 1 + 8;

/// `torch.Generator("cpu")`: the same seed gives the values that torch gives, in the same order.
#[derive(Clone, PartialEq)]
pub struct TorchCpu {
    words: [u32; N],
    /// Words of `words` already used; `N` means that the next draw makes a new block.
    used: usize,
    /// Box-Muller makes normals in pairs; the scalar path keeps the second one, also from one call to the next.
    next_normal: Option<f64>,
}

impl TorchCpu {
    /// `generator.manual_seed(seed)`. As in torch, only the low 32 bits count.
    pub fn new(seed: u64) -> TorchCpu {
        let mut words = [0; N];
        words[0] = seed as u32;
        for i in 1..N {
            let previous: u32 = words[i - 1];
            words[i] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        TorchCpu { words, used: N, next_normal: None }
    }

    /// `torch.randn(n)` in f32: `n` values of a standard normal.
    ///
    /// The order of draws depends on `n` (under 16, from 16 on, and whether 16 divides it), so drawing 32 values
    /// once is not the same as drawing 16 twice.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal() as f32).collect();
        }
        let mut values = self.rand(n);
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            // torch overwrites the last 16 values, some of them already normal, with a fresh block.
            let fresh = self.rand(BLOCK);
            let tail = &mut values[n - BLOCK..];
            tail.copy_from_slice(&fresh);
            box_muller(tail);
        }
        values
    }

    /// `torch.rand(n)` in f32: `n` values, uniform in [0, 1), multiples of 2⁻²⁴.
    pub fn rand(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next_u32() & 0xff_ffff) as f32 / 16_777_216.0).collect()
    }

    /// `torch.randint(low, high, (n,))`: `n` integers in `low..high`.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn randint(&mut self, low: i64, high: i64, n: usize) -> Vec<i64> {
        assert!(low < high, "randint: empty range {low}..{high}");
        let range = high.wrapping_sub(low) as u64;
        let draw = |rng: &mut TorchCpu| {
            // torch takes 64 bits where 32 would make the modulo's bias felt.
            let word = if range >= 1 << 28 { rng.next_u64() } else { u64::from(rng.next_u32()) };
            low.wrapping_add((word % range) as i64)
        };
        (0..n).map(|_| draw(self)).collect()
    }

    /// `torch.randperm(n)`: the integers `0..n` in random order.
    pub fn randperm(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        let wide = n >= u32::MAX as usize / 20;
        for i in 0..n.saturating_sub(1) {
            let word = if wide { self.next_u64() } else { u64::from(self.next_u32()) };
            order.swap(i, i + (word % (n - i) as u64) as usize);
        }
        order
    }

    /// The generator as bytes, for [`from_state`](Self::from_state): a checkpoint continues the stream exactly.
    pub fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATE_LEN);
        for word in self.words {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((self.used as u32).to_le_bytes());
        bytes.push(u8::from(self.next_normal.is_some()));
        bytes.extend(self.next_normal.unwrap_or(0.0).to_le_bytes());
        bytes
    }

    /// The generator that [`state`](Self::state) saved.
    ///
    /// # Errors
    /// If the bytes have another length or hold an impossible position.
    pub fn from_state(bytes: &[u8]) -> Result<TorchCpu, BadState> {
        let bad = |found: String| BadState {
            generator: "TorchCpu",
            expected: "2509 bytes of MT19937 state",
            found,
        };
        if bytes.len() != STATE_LEN {
            return Err(bad(format!("{} bytes", bytes.len())));
        }
        let (words, rest) = bytes.split_at(4 * N);
        let mut numbers = words.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let words = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        let used = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if used > N || rest[4] > 1 {
            return Err(bad(format!("position {used} of {N}, flag {}", rest[4])));
        }
        let mut normal = [0; 8];
        normal.copy_from_slice(&rest[5..]);
        let next_normal = (rest[4] == 1).then_some(f64::from_le_bytes(normal));
        Ok(TorchCpu { words, used, next_normal })
    }

    /// One normal by ATen's scalar path, in f64.
    fn normal(&mut self) -> f64 {
        if let Some(value) = self.next_normal.take() {
            return value;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (2.0 * std::f64::consts::PI * u1).sin_cos();
        self.next_normal = Some(radius * sin);
        radius * cos
    }

    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn next_u32(&mut self) -> u32 {
        if self.used == N {
            self.twist();
        }
        let mut y = self.words[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % N] & 0x7fff_ffff);
            let mag = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + M) % N] ^ (y >> 1) ^ mag;
        }
        self.used = 0;
    }
}

impl std::fmt::Debug for TorchCpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchCpu")
            .field("used", &self.used)
            .field("next_normal", &self.next_normal)
            .finish_non_exhaustive()
    }
}

/// 16 uniforms to 16 normals in place: value `j` is paired with value `j + 8`.
///
/// The angle is rounded to f32 as torch's AVX2 kernel does; the functions run in f64, so that the result does not
/// depend on the platform's f32 math library.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * f64::from(1.0 - *a).ln()).sqrt();
        let theta = (2.0 * std::f64::consts::PI) as f32 * *b;
        let (sin, cos) = f64::from(theta).sin_cos();
        *a = (radius * cos) as f32;
        *b = (radius * sin) as f32;
    }
}
