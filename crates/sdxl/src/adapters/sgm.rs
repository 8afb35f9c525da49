//! SDXL's original names. kohya's trainer numbers the UNet's blocks as Stability's code does, over all levels. As diffusers'
//! `_maybe_map_sgm_blocks_to_diffusers`, but in the other direction: from the path to the original name.

use calotype_models::config::UNetConfig;

/// The layers outside of the blocks.
const OUTSIDE: [(&str, &str); 7] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];
/// The layers of a ResNet.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("norm2", "out_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The original name of a layer, given its path in diffusers' UNet.
pub(super) fn original(path: &str, config: &UNetConfig) -> Option<String> {
    if let Some((_, old)) = OUTSIDE.iter().find(|(new, _)| *new == path) {
        return Some((*old).into());
    }
    let parts: Vec<&str> = path.splitn(5, '.').collect();
    match parts[..] {
        ["mid_block", "attentions", "0", ..] => {
            Some(format!("middle_block.1.{}", path.strip_prefix("mid_block.attentions.0.")?))
        }
        ["mid_block", "resnets", i, ..] => {
            let layer = path.strip_prefix("mid_block.resnets.")?.split_once('.')?.1;
            Some(format!("middle_block.{}.{}", 2 * number(i)?, resnet(layer)?))
        }
        ["down_blocks", block, kind, i, layer] => down(config, number(block)?, kind, number(i)?, layer),
        ["up_blocks", block, kind, i, layer] => up(config, number(block)?, kind, number(i)?, layer),
        _ => None,
    }
}

/// Input block 0 is `conv_in`. Each level then has its ResNets and, except the last, a downsampler.
fn down(config: &UNetConfig, block: usize, kind: &str, i: usize, layer: &str) -> Option<String> {
    let layers = config.layers_per_block.get(..block)?;
    let first = 1 + layers.iter().map(|n| n + 1).sum::<usize>();
    Some(match kind {
        "resnets" => format!("input_blocks.{}.0.{}", first + i, resnet(layer)?),
        "attentions" => format!("input_blocks.{}.1.{layer}", first + i),
        "downsamplers" => format!("input_blocks.{}.0.op", first + config.layers_per_block.get(block)?),
        _ => return None,
    })
}

/// Each level has one ResNet more than in the down path. An upsampler belongs to the level's last ResNet.
fn up(config: &UNetConfig, block: usize, kind: &str, i: usize, layer: &str) -> Option<String> {
    let layers: Vec<usize> = config.layers_per_block.iter().rev().map(|n| n + 1).collect();
    let first = layers.get(..block)?.iter().sum::<usize>();
    Some(match kind {
        "resnets" => format!("output_blocks.{}.0.{}", first + i, resnet(layer)?),
        "attentions" => format!("output_blocks.{}.1.{layer}", first + i),
        "upsamplers" => {
            let place = match config.up_block_types.get(block)? {
                calotype_models::config::UNetBlock::CrossAttn => 2,
                calotype_models::config::UNetBlock::Plain => 1,
            };
            format!("output_blocks.{}.{place}.{layer}", first + layers.get(block)? - 1)
        }
        _ => return None,
    })
}

fn resnet(layer: &str) -> Option<&'static str> {
    RESNET.iter().find(|(new, _)| *new == layer).map(|(_, old)| *old)
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use calotype_models::config::UNetConfig;

    /// Protects the numbering of SDXL's UNet, as in Stability's checkpoint and kohya's files.
    #[test]
    fn sdxl_is_numbered_as_published() {
        let dir = std::env::temp_dir().join(format!("calotype-sgm-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let config = serde_json::json!({
            "_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048, "use_linear_projection": true, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816
        });
        std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
        let config = UNetConfig::read(&dir).expect("SDXL's config");
        std::fs::remove_dir_all(&dir).expect("removed");
        for (path, old) in [
            ("conv_in", "input_blocks.0.0"),
            ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
            (
                "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_out.0",
                "input_blocks.5.1.transformer_blocks.1.attn2.to_out.0",
            ),
            (
                "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2",
                "input_blocks.8.1.transformer_blocks.9.ff.net.2",
            ),
            (
                "mid_block.attentions.0.transformer_blocks.3.attn1.to_q",
                "middle_block.1.transformer_blocks.3.attn1.to_q",
            ),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out"),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
            ("up_blocks.1.attentions.0.norm", "output_blocks.3.1.norm"),
            ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
            ("add_embedding.linear_2", "label_emb.0.2"),
        ] {
            assert_eq!(original(path, &config).as_deref(), Some(old), "{path}");
        }
        assert_eq!(original("down_blocks.9.resnets.0.conv1", &config), None);
    }
}
