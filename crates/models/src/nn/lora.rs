//! Low-rank adaptation of a linear layer. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{DType, Device, Tensor, Weight};

use super::Parameter;

/// `up(down(x))`, which is added to the output of a linear layer.
#[derive(Clone)]
pub struct Lora {
    /// (rank, in), f32.
    pub down: Parameter,
    /// (out, rank), f32.
    pub up: Parameter,
}

impl Lora {
    /// Zero matrices of rank `rank` (at least 1) on a device, for a layer from `input` to `output` channels.
    pub fn zeros(rank: usize, input: usize, output: usize, device: Device) -> Self {
        let zeros = |rows, columns| Parameter::<Tensor>::new(device.zeros(&[rows, columns], DType::F32));
        Self { down: zeros(rank, input), up: zeros(output, rank) }
    }

    /// x (.., in), base (.., out) → base + up(down(x)).
    pub fn add_to(&self, base: &Tensor, x: &Tensor) -> Tensor {
        let (down, up) = (Weight::from_tensor(&self.down.get()), Weight::from_tensor(&self.up.get()));
        let h = ops::linear(x, &down, LinearArgs::default()); // (.., rank)
        ops::linear(&h, &up, LinearArgs { residual: Some(base), ..LinearArgs::default() })
    }
}
