//! Configs out of the shapes of a file's tensors. A file has no configs; where shapes tell nothing, SDXL's own numbers are used.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::json::{MAX_BLOCKS, MAX_LAYERS};

/// The shapes of tensors, by key.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Whether a key begins with `prefix`.
pub fn any_below(shapes: &Shapes, prefix: &str) -> bool {
    let next = shapes.range(prefix.to_owned()..).next();
    next.is_some_and(|(key, _)| key.starts_with(prefix))
}

/// Channels of an attention head in every network of SDXL. No shape tells the number of heads.
const HEAD: usize = 64;
/// Groups of every group norm of SDXL.
const GROUPS: usize = 32;
/// Side of the latents that SDXL was trained on.
const SAMPLE_SIZE: usize = 128;

/// The number of ResNets of each down block, and whether each up block has attention, from a UNet's shapes by
/// original key.
pub fn unet_blocks(shapes: &Shapes) -> (Vec<usize>, Vec<bool>) {
    let has = |prefix: &str| any_below(shapes, prefix);
    let (mut layers, mut n) = (vec![0], 1);
    // Each number is of a level's ResNet or of the downsampler behind them.
    while layers.len() <= MAX_BLOCKS && n < MAX_BLOCKS * MAX_LAYERS && has(&format!("input_blocks.{n}.")) {
        match has(&format!("input_blocks.{n}.0.op.")) {
            true => layers.push(0),
            false => *layers.last_mut().expect("one level at least") += 1,
        }
        n += 1;
    }
    let mut first = 0;
    let attention = layers.iter().rev().map(|count| {
        let found = has(&format!("output_blocks.{first}.1.norm."));
        first += count + 1;
        found
    });
    let attention = attention.collect();
    (layers, attention)
}

/// A UNet's config. `layers` is the number of ResNets of each down block, `pooled` the width of the pooled text, `ids` the
/// number of time ids.
pub fn unet(shapes: &Shapes, layers: &[usize], pooled: usize, ids: usize) -> Value {
    let first = |b: usize| size(shapes, &format!("down_blocks.{b}.resnets.0.conv1.weight"), 0);
    let channels: Vec<usize> = (0..layers.len()).map(first).collect();
    let (down, up) = (depths(shapes, "down_blocks", layers.iter().copied()), up_depths(shapes, layers));
    let any = |ending: &str| shapes.keys().find(|key| key.ends_with(ending));
    let added = size(shapes, "add_embedding.linear_1.weight", 1);
    let mut config = json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "addition_embed_type": "text_time",
        "addition_time_embed_dim": added.saturating_sub(pooled) / ids,
        "attention_head_dim": channels.iter().map(|c| heads(*c)).collect::<Vec<_>>(),
        "block_out_channels": channels,
        "cross_attention_dim": any(".attn2.to_k.weight").map_or(0, |key| size(shapes, key, 1)),
        "down_block_types": block_types(&down, "Down"), "up_block_types": block_types(&up, "Up"),
        "flip_sin_to_cos": true, "freq_shift": 0,
        "in_channels": size(shapes, "conv_in.weight", 1), "out_channels": size(shapes, "conv_out.weight", 0),
        "layers_per_block": layers, "mid_block_type": mid_block_type(shapes),
        "norm_eps": 1e-5, "norm_num_groups": GROUPS,
        "projection_class_embeddings_input_dim": added, "sample_size": SAMPLE_SIZE,
        "time_embedding_dim": size(shapes, "time_embedding.linear_1.weight", 0),
        "use_linear_projection": any(".proj_in.weight").is_none_or(|key| shapes[key].len() == 2),
    });
    let mid = depth(shapes, "mid_block.attentions.0");
    match scalars(&down, &up, mid) {
        Some(depths) => config["transformer_layers_per_block"] = json!(depths),
        None => {
            config["reverse_transformer_layers_per_block"] = json!(up);
            let mut each: Vec<Value> = down.iter().map(|depths| json!(depths)).collect();
            if let Some(last) =
                each.last_mut().filter(|_| down.last().is_some_and(|d| d.iter().all(|d| *d == 0)))
            {
                *last = json!(mid); // the middle block's, because the last level has no attention
            }
            config["transformer_layers_per_block"] = Value::Array(each);
        }
    }
    config
}

/// A VAE's config.
pub fn vae(shapes: &Shapes) -> Value {
    let key = |level: usize, i: usize| format!("encoder.down_blocks.{level}.resnets.{i}.conv1.weight");
    let levels = (0..MAX_BLOCKS).take_while(|level| shapes.contains_key(&key(*level, 0))).count();
    let channels: Vec<usize> = (0..levels).map(|level| size(shapes, &key(level, 0), 0)).collect();
    let layers = (0..MAX_LAYERS).take_while(|i| shapes.contains_key(&key(0, *i))).count();
    json!({
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; levels], "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "force_upcast": true, "in_channels": 3, "out_channels": 3,
        "latent_channels": size(shapes, "decoder.conv_in.weight", 1), "layers_per_block": layers,
        "mid_block_add_attention": shapes.contains_key("decoder.mid_block.attentions.0.to_q.weight"),
        "norm_num_groups": GROUPS, "sample_size": 1024, "scaling_factor": 0.13025,
        "use_quant_conv": shapes.contains_key("quant_conv.weight"),
        "use_post_quant_conv": shapes.contains_key("post_quant_conv.weight"),
    })
}

/// A text encoder's config: OpenCLIP's has a projection, OpenAI's has none.
pub fn text(shapes: &Shapes) -> Value {
    let of = |name: &str, axis| size(shapes, &format!("text_model.{name}"), axis);
    let width = of("embeddings.token_embedding.weight", 1);
    let layer = |i: usize| format!("text_model.encoder.layers.{i}.layer_norm1.weight");
    let projection = size(shapes, "text_projection.weight", 0);
    let (act, class) = match projection {
        0 => ("quick_gelu", "CLIPTextModel"),
        _ => ("gelu", "CLIPTextModelWithProjection"),
    };
    json!({
        "architectures": [class], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": act, "hidden_size": width,
        "intermediate_size": of("encoder.layers.0.mlp.fc1.weight", 0), "layer_norm_eps": 1e-5,
        "max_position_embeddings": of("embeddings.position_embedding.weight", 0), "model_type": "clip_text_model",
        "num_attention_heads": heads(width), "pad_token_id": 1,
        "num_hidden_layers": (0..MAX_LAYERS).take_while(|i| shapes.contains_key(&layer(*i))).count(),
        "projection_dim": if projection == 0 { width } else { projection },
        "vocab_size": of("embeddings.token_embedding.weight", 0),
    })
}

/// Heads have 64 channels in every network of SDXL. A narrower network has one head.
fn heads(channels: usize) -> usize {
    (channels / HEAD).max(1)
}

fn size(shapes: &Shapes, key: &str, axis: usize) -> usize {
    shapes.get(key).and_then(|shape| shape.get(axis)).copied().unwrap_or(0)
}

/// The number of transformer blocks of one attention; 0 if there is no attention.
fn depth(shapes: &Shapes, attention: &str) -> usize {
    let block = |k: usize| format!("{attention}.transformer_blocks.{k}.norm1.weight");
    (0..=MAX_LAYERS).take_while(|k| shapes.contains_key(&block(*k))).count()
}

fn depths(shapes: &Shapes, path: &str, counts: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let each = |(b, n)| (0..n).map(|i| depth(shapes, &format!("{path}.{b}.attentions.{i}"))).collect();
    counts.enumerate().map(each).collect()
}

fn up_depths(shapes: &Shapes, layers: &[usize]) -> Vec<Vec<usize>> {
    depths(shapes, "up_blocks", layers.iter().rev().map(|n| n + 1))
}

fn block_types(depths: &[Vec<usize>], path: &str) -> Vec<String> {
    let kind = |each: &Vec<usize>| if each.iter().any(|d| *d > 0) { "CrossAttn" } else { "" };
    depths.iter().map(|each| format!("{}{path}Block2D", kind(each))).collect()
}

/// SSD-1B's middle block is a single ResNet, KOALA-700M has none.
fn mid_block_type(shapes: &Shapes) -> Option<&'static str> {
    match (shapes.contains_key("mid_block.resnets.0.conv1.weight"), depth(shapes, "mid_block.attentions.0")) {
        (false, _) => None,
        (true, 0) => Some("UNetMidBlock2D"),
        (true, _) => Some("UNetMidBlock2DCrossAttn"),
    }
}

/// One depth for each level, if the depths in each level are equal, and the middle block has the depth of the last level. A last
/// level without attention has the middle block's depth as its entry.
fn scalars(down: &[Vec<usize>], up: &[Vec<usize>], mid: usize) -> Option<Vec<usize>> {
    let of_level = |(down, up): (&Vec<usize>, &Vec<usize>)| {
        let mut found: Vec<usize> = down.iter().chain(up).copied().filter(|d| *d > 0).collect();
        found.dedup();
        let whole = |each: &[usize]| each.iter().all(|d| *d == 0) || each.iter().all(|d| *d > 0);
        (found.len() <= 1 && whole(down) && whole(up)).then(|| found.first().copied().unwrap_or(0))
    };
    let mut all: Vec<usize> = down.iter().zip(up.iter().rev()).map(of_level).collect::<Option<_>>()?;
    let last = all.last_mut()?;
    if *last == 0 {
        *last = mid;
    }
    (mid == 0 || *last == mid).then(|| all.into_iter().map(|d| d.max(1)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{UNetBlock, UNetConfig, UNetMidBlock};
    use crate::json::Json;

    /// The shapes that tell a UNet's sizes: `down`, `up` and `mid` are the depths of the transformers, 0 for none.
    fn shapes(channels: &[usize], down: &[&[usize]], up: &[&[usize]], mid: Option<usize>) -> Shapes {
        let mut shapes = Shapes::new();
        let mut add = |key: String, shape: &[usize]| drop(shapes.insert(key, shape.to_vec()));
        let mut attention = |path: String, depth: usize| {
            for k in 0..depth {
                add(format!("{path}.transformer_blocks.{k}.norm1.weight"), &[64]);
                add(format!("{path}.transformer_blocks.{k}.attn2.to_k.weight"), &[64, 2048]);
                add(format!("{path}.proj_in.weight"), &[64, 64]);
            }
        };
        for (path, blocks) in [("down_blocks", down), ("up_blocks", up)] {
            for (b, depths) in blocks.iter().enumerate() {
                depths
                    .iter()
                    .enumerate()
                    .for_each(|(i, d)| attention(format!("{path}.{b}.attentions.{i}"), *d));
            }
        }
        attention("mid_block.attentions.0".into(), mid.unwrap_or(0));
        for (b, c) in channels.iter().enumerate() {
            add(format!("down_blocks.{b}.resnets.0.conv1.weight"), &[*c, 4, 3, 3]);
        }
        if mid.is_some() {
            add("mid_block.resnets.0.conv1.weight".into(), &[64, 64, 3, 3]);
        }
        add("conv_in.weight".into(), &[channels[0], 4, 3, 3]);
        add("conv_out.weight".into(), &[4, channels[0], 3, 3]);
        add("add_embedding.linear_1.weight".into(), &[1280, 2816]);
        add("time_embedding.linear_1.weight".into(), &[1280, 320]);
        shapes
    }

    fn config(shapes: &Shapes, layers: &[usize]) -> (Value, UNetConfig) {
        let json = unet(shapes, layers, 1280, 6);
        let config = UNetConfig::from_json(&Json::of(Path::new("file"), json.clone()));
        (json, config.expect("a config"))
    }

    /// Protects SDXL's config, which is told by the shapes in its file.
    #[test]
    fn sdxl() {
        let shapes = shapes(
            &[320, 640, 1280],
            &[&[0, 0], &[2, 2], &[10, 10]],
            &[&[10, 10, 10], &[2, 2, 2], &[0, 0, 0]],
            Some(10),
        );
        let (json, config) = config(&shapes, &[2, 2, 2]);
        assert_eq!(json["transformer_layers_per_block"], json!([1, 2, 10]));
        assert_eq!(json["attention_head_dim"], json!([5, 10, 20]));
        assert_eq!((config.addition_time_embed_dim, config.cross_attention_dim), (256, 2048));
        assert_eq!(config.up_block_types, [UNetBlock::CrossAttn, UNetBlock::CrossAttn, UNetBlock::Plain]);
        assert!(config.use_linear_projection && config.mid_block_type == UNetMidBlock::CrossAttn);
        assert_eq!(config.mid_transformer_layers, 10);
    }

    /// Protects the refiner, whose last level has no attention although its middle block has.
    #[test]
    fn the_refiner() {
        let (down, up): ([&[usize]; 4], [&[usize]; 4]) =
            ([&[0, 0], &[4, 4], &[4, 4], &[0, 0]], [&[0; 3], &[4; 3], &[4; 3], &[0; 3]]);
        let (_, config) = config(&shapes(&[384, 768, 1536, 1536], &down, &up, Some(4)), &[2, 2, 2, 2]);
        assert_eq!(config.num_attention_heads, [6, 12, 24, 24]);
        assert_eq!(config.mid_transformer_layers, 4);
        assert_eq!(config.down_block_types[3], UNetBlock::Plain);
        assert_eq!(config.up_transformer_layers[1], [4, 4, 4]);
    }

    /// Protects distilled models: SSD-1B has other depths on the way up and a middle block of one ResNet, KOALA-700M has one layer
    /// less and no middle block. Others, such as Vega, differ in depths alone: any are read, also where one level has several.
    #[test]
    fn distilled_models() {
        let ssd = shapes(
            &[320, 640, 1280],
            &[&[0, 0], &[2, 2], &[4, 4]],
            &[&[4, 4, 10], &[2, 1, 1], &[0, 0, 0]],
            Some(0),
        );
        let (_, config) = config(&ssd, &[2, 2, 2]);
        assert_eq!(config.mid_block_type, UNetMidBlock::Plain);
        assert_eq!(config.up_transformer_layers, [vec![4, 4, 10], vec![2, 1, 1], vec![0, 0, 0]]);
        assert_eq!(config.down_transformer_layers[2], [4, 4]);
        let koala = shapes(&[320, 640, 1280], &[&[0], &[2], &[5]], &[&[5, 5], &[2, 2], &[0, 0]], None);
        let (json, config) = self::config(&koala, &[1, 1, 1]);
        assert_eq!(config.mid_block_type, UNetMidBlock::None);
        assert_eq!(json["transformer_layers_per_block"], json!([1, 2, 5]));
        let (down, up): ([&[usize]; 3], [&[usize]; 3]) =
            ([&[0, 0], &[1, 1], &[2, 1]], [&[2, 2, 2], &[1, 1, 1], &[0, 0, 0]]);
        let kinds =
            [(None, UNetMidBlock::None), (Some(0), UNetMidBlock::Plain), (Some(2), UNetMidBlock::CrossAttn)];
        for (mid, kind) in kinds {
            let (_, config) = self::config(&shapes(&[320, 640, 1280], &down, &up, mid), &[2, 2, 2]);
            assert_eq!(config.down_transformer_layers[1..], [[1, 1], [2, 1]]);
            assert_eq!(config.up_transformer_layers, up.map(<[usize]>::to_vec));
            assert_eq!(config.mid_block_type, kind);
        }
    }

    /// Protects the count of layers: a level ends at its downsampler, and the up path's levels have one layer more.
    #[test]
    fn levels_end_at_their_downsamplers() {
        let keys = [
            "1.0.in_layers.0.weight",
            "2.0.op.bias",
            "3.0.in_layers.0.weight",
            "3.1.norm.weight",
            "4.0.in_layers.0.bias",
        ];
        let mut shapes: Shapes = keys.iter().map(|key| (format!("input_blocks.{key}"), vec![64])).collect();
        shapes.insert("output_blocks.0.1.norm.weight".into(), vec![64]);
        shapes.insert("output_blocks.3.1.conv.weight".into(), vec![64]);
        assert_eq!(unet_blocks(&shapes), (vec![1, 2], vec![true, false]));
    }
}
