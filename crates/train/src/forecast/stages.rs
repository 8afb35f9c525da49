//! The parts of a UNet in the order of the forward pass, from its config, for counts before the UNet is loaded.

use calotype_models::config::{UNetBlock, UNetConfig, UNetMidBlock};

/// A part of a UNet. Level 0 works on all latents, each further level on half as many per side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Resnet {
        level: usize,
        input: usize,
        output: usize,
    },
    Transformer {
        level: usize,
        depth: usize,
    },
    /// The downsampler from this level to the next.
    Down {
        level: usize,
    },
    /// The upsampler from this level to the previous.
    Up {
        level: usize,
    },
}

/// All parts between the first convolution and the last norm.
pub(super) fn stages(config: &UNetConfig) -> Vec<Stage> {
    let channels = &config.block_out_channels;
    let (mut stages, mut skips, mut input) = (Vec::new(), vec![channels[0]], channels[0]);
    let last = channels.len() - 1;
    for (level, &output) in channels.iter().enumerate() {
        for layer in 0..config.layers_per_block[level] {
            stages.push(Stage::Resnet { level, input, output });
            if config.down_block_types[level] == UNetBlock::CrossAttn {
                stages
                    .push(Stage::Transformer { level, depth: config.down_transformer_layers[level][layer] });
            }
            skips.push(output);
            input = output;
        }
        if level < last {
            stages.push(Stage::Down { level });
            skips.push(output);
        }
    }
    let resnet = Stage::Resnet { level: last, input, output: input };
    let transformer = Stage::Transformer { level: last, depth: config.mid_transformer_layers };
    match config.mid_block_type {
        UNetMidBlock::CrossAttn => stages.extend([resnet, transformer, resnet]),
        UNetMidBlock::Plain => stages.push(resnet),
        UNetMidBlock::None => {}
    }
    for (i, level) in (0..=last).rev().enumerate() {
        let output = channels[level];
        for layer in 0..=config.layers_per_block[level] {
            let skip = skips.pop().unwrap_or(output);
            stages.push(Stage::Resnet { level, input: input + skip, output });
            if config.up_block_types[i] == UNetBlock::CrossAttn {
                stages.push(Stage::Transformer { level, depth: config.up_transformer_layers[i][layer] });
            }
            input = output;
        }
        if level > 0 {
            stages.push(Stage::Up { level });
        }
    }
    stages
}

/// Latents per side at a level, for a picture with `latent` per side.
pub(super) fn side(latent: usize, level: usize) -> usize {
    latent.div_ceil(1 << level)
}
