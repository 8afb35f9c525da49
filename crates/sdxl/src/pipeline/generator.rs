//! The random numbers of one picture, as torch draws them.

use calotype_tensor::Tensor;
use calotype_tensor::rng::{TorchCpu, TorchCuda};

use crate::channels_last::channels_last;

/// The generator of torch that draws the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rng {
    /// The CPU generator (MT19937).
    Cpu,
    /// The CUDA generator (Philox 4×32-10).
    Cuda,
}

/// Draws the noise of one picture.
pub(super) struct Noise {
    generator: Generator,
    /// Height, width and channels of the latents.
    shape: [usize; 3],
}

enum Generator {
    Cpu(Box<TorchCpu>),
    Cuda(TorchCuda),
}

impl Noise {
    pub fn new(rng: Rng, seed: u64, shape: [usize; 3]) -> Noise {
        let generator = match rng {
            Rng::Cpu => Generator::Cpu(Box::new(TorchCpu::new(seed))),
            Rng::Cuda => Generator::Cuda(TorchCuda::new(seed)),
        };
        Noise { generator, shape }
    }

    /// Standard normal numbers (1, h, w, C), drawn as torch draws (1, C, h, w).
    pub fn draw(&mut self) -> Tensor {
        let count = self.shape.iter().product();
        let numbers = match &mut self.generator {
            Generator::Cpu(generator) => generator.randn(count),
            Generator::Cuda(generator) => generator.randn(count),
        };
        channels_last(&numbers, self.shape)
    }
}
