//! The residual block of the UNet and of the VAE.

use calotype_tensor::{Tensor, checkpoint};

use super::{Activations, Conv2d, GroupNorm, Linear, module};
use crate::weights::{Weights, WeightsError};

/// Two 3×3 convolutions, each after a group norm and SiLU. The input is added to the result.
#[derive(Clone)]
pub struct ResnetBlock2D {
    /// I channels.
    pub norm1: GroupNorm,
    /// I → O.
    pub conv1: Conv2d,
    /// Time embedding → O; `None` in the VAE.
    pub time_emb_proj: Option<Linear>,
    /// O channels.
    pub norm2: GroupNorm,
    /// O → O.
    pub conv2: Conv2d,
    /// 1×1, I → O, if I and O differ.
    pub conv_shortcut: Option<Conv2d>,
}

/// The sizes that all residual blocks of a network have in common.
#[derive(Clone, Copy)]
pub struct ResnetConfig {
    /// Width of the time embedding; `None` without one.
    pub time_embed_dim: Option<usize>,
    /// Groups of the norms.
    pub groups: usize,
    /// Added to the norms' variance.
    pub eps: f32,
}

impl ResnetBlock2D {
    /// Loads a block from I = `input` to O = `output` channels.
    pub fn load(
        weights: &Weights,
        input: usize,
        output: usize,
        config: ResnetConfig,
    ) -> Result<Self, WeightsError> {
        let norm = |name: &str, channels| GroupNorm::load(weights, name, config.groups, channels, config.eps);
        let time_emb_proj = match config.time_embed_dim {
            Some(width) => Some(Linear::load(weights, "time_emb_proj", width, output)?),
            None => None,
        };
        let conv_shortcut = match input == output {
            true => None,
            false => Some(Conv2d::load(weights, "conv_shortcut", input, output, 1)?),
        };
        Ok(Self {
            norm1: norm("norm1", input)?,
            conv1: Conv2d::load(weights, "conv1", input, output, 3)?,
            time_emb_proj,
            norm2: norm("norm2", output)?,
            conv2: Conv2d::load(weights, "conv2", output, output, 3)?,
            conv_shortcut,
        })
    }

    /// x (B, H, W, I), `emb` (B, time embedding) after SiLU → (B, H, W, O).
    pub fn forward(&self, x: &Tensor, emb: Option<&Tensor>, activations: Activations) -> Tensor {
        if activations == Activations::Keep {
            return self.run(&x.fork(), emb.map(Tensor::fork).as_ref());
        }
        let block = self.clone();
        let inputs: Vec<Tensor> = [Some(x), emb].into_iter().flatten().cloned().collect();
        checkpoint(move |t| block.run(&t[0], t.get(1)), &inputs)
    }

    fn run(&self, x: &Tensor, emb: Option<&Tensor>) -> Tensor {
        let shift = self.time_emb_proj.as_ref().zip(emb).map(|(proj, emb)| proj.forward(emb)); // (B, O)
        let mut h = self.conv1.forward_fused(&self.norm1.forward_silu(x), shift.as_ref(), None);
        h = self.norm2.forward_silu(&h); // assigned rather than shadowed, which frees the old `h`
        let shortcut = match &self.conv_shortcut {
            Some(conv) => &conv.forward(x),
            None => x,
        };
        self.conv2.forward_fused(&h, None, Some(shortcut))
    }
}

module!(ResnetBlock2D {
    norm1 => "norm1",
    conv1 => "conv1",
    time_emb_proj => "time_emb_proj",
    norm2 => "norm2",
    conv2 => "conv2",
    conv_shortcut => "conv_shortcut",
});
