//! `UNet2DConditionModel`'s config, as SDXL uses it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::json::{ConfigError, Json, MAX_BLOCKS, MAX_CHANNELS, MAX_LAYERS, PerBlock};

/// A UNet's sizes. Lists have one entry for each block, in the order of the down path unless stated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Latent channels in.
    pub in_channels: usize,
    /// Latent channels out.
    pub out_channels: usize,
    /// Height and width of the latents that the model was trained on (128 for SDXL, which is 1024 pixels).
    /// `None`: unknown.
    pub sample_size: Option<usize>,
    /// Channels of each block; the up path uses them in reverse.
    pub block_out_channels: Vec<usize>,
    /// The type of each down block.
    pub down_block_types: Vec<UNetBlock>,
    /// The type of each up block, in the up path's order.
    pub up_block_types: Vec<UNetBlock>,
    /// ResNets of each down block; up block `i` has one more than down block `n - 1 - i`.
    pub layers_per_block: Vec<usize>,
    /// Transformer blocks after each ResNet of each down block (unused in a block without attention).
    pub down_transformer_layers: Vec<Vec<usize>>,
    /// The type of the middle block.
    pub mid_block_type: UNetMidBlock,
    /// Transformer blocks of the middle block (unused if it has no attention).
    pub mid_transformer_layers: usize,
    /// Transformer blocks after each ResNet of each up block, in the up path's order.
    pub up_transformer_layers: Vec<Vec<usize>>,
    /// Attention heads of each block. The middle block uses the last, the up path uses them in reverse. The file
    /// calls this `attention_head_dim`, which in diffusers is the number of heads.
    pub num_attention_heads: Vec<usize>,
    /// Channels of the text states.
    pub cross_attention_dim: usize,
    /// Whether a transformer's `proj_in` and `proj_out` are linear layers rather than 1×1 convolutions.
    pub use_linear_projection: bool,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the ResNets' group norms and of `conv_norm_out`. Transformers use 1e-6.
    pub norm_eps: f32,
    /// Whether the timestep embedding is `[cos, sin]` rather than `[sin, cos]`.
    pub flip_sin_to_cos: bool,
    /// The timestep embedding's `downscale_freq_shift`.
    pub freq_shift: f32,
    /// Channels of the time embedding. By default, 4 × the first block's channels.
    pub time_embed_dim: usize,
    /// Channels of the sinusoidal embedding of each time id.
    pub addition_time_embed_dim: usize,
    /// Input channels of `add_embedding`: the pooled text and the embeddings of all time ids.
    pub projection_class_embeddings_input_dim: usize,
}

/// The types of a UNet's down and up blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UNetBlock {
    /// `DownBlock2D`, `UpBlock2D`: ResNets only.
    Plain,
    /// `CrossAttnDownBlock2D`, `CrossAttnUpBlock2D`: a transformer after each ResNet.
    CrossAttn,
}

/// The types of a UNet's middle block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UNetMidBlock {
    /// `UNetMidBlock2DCrossAttn`: ResNet, transformer, ResNet.
    CrossAttn,
    /// `UNetMidBlock2D`: one ResNet (SSD-1B).
    Plain,
    /// `null`: no middle block (KOALA-700M).
    None,
}

/// The fields of the file, with diffusers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    in_channels: usize,
    out_channels: usize,
    sample_size: Option<PerBlock<usize>>,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    layers_per_block: PerBlock<usize>,
    transformer_layers_per_block: PerBlock<PerBlock<usize>>,
    reverse_transformer_layers_per_block: Option<PerBlock<PerBlock<usize>>>,
    attention_head_dim: PerBlock<usize>,
    cross_attention_dim: PerBlock<usize>,
    use_linear_projection: bool,
    norm_num_groups: usize,
    norm_eps: f64,
    flip_sin_to_cos: bool,
    freq_shift: f32,
    time_embedding_dim: Option<usize>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
}

impl Default for Raw {
    fn default() -> Self {
        let names = |list: [&str; 4]| list.map(str::to_owned).to_vec();
        let (down, cross_down) = ("DownBlock2D", "CrossAttnDownBlock2D");
        let (up, cross_up) = ("UpBlock2D", "CrossAttnUpBlock2D");
        Self {
            in_channels: 4,
            out_channels: 4,
            sample_size: None,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: names([cross_down, cross_down, cross_down, down]),
            up_block_types: names([up, cross_up, cross_up, cross_up]),
            layers_per_block: PerBlock::One(2),
            transformer_layers_per_block: PerBlock::One(PerBlock::One(1)),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: PerBlock::One(8),
            cross_attention_dim: PerBlock::One(1280),
            use_linear_projection: false,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_dim: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
        }
    }
}

/// diffusers' switches for the architectures of other models, with SDXL's value. `upcast_attention` (scores are
/// always f32) and `dropout` (0 outside training) are not listed.
const FIXED: &[(&str, &str)] = &[
    ("_class_name", "\"UNet2DConditionModel\""),
    ("addition_embed_type", "\"text_time\""),
    ("attention_type", "\"default\""),
    ("center_input_sample", "false"),
    ("class_embed_type", "null"),
    ("class_embeddings_concat", "false"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("downsample_padding", "1"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_only_cross_attention", "false"),
    ("mid_block_scale_factor", "1"),
    ("num_attention_heads", "null"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1"),
    ("resnet_skip_time_act", "false"),
    ("resnet_time_scale_shift", "\"default\""),
    ("time_cond_proj_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_type", "\"positional\""),
    ("timestep_post_act", "null"),
];

/// What is expected where a UNet was distilled to LCM.
const LCM: &str = "null (a UNet distilled to LCM, which takes the guidance as an input, is not supported; LCM's LoRA with the base model is)";

impl UNetConfig {
    /// Reads the `config.json` of one component's folder.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        Self::from_json(&Json::read(&folder.join("config.json"))?)
    }

    /// Reads and checks the config. An error names the file and the field, and what was expected and found.
    pub(crate) fn from_json(json: &Json) -> Result<Self, ConfigError> {
        if let Some(width) = json.value["time_cond_proj_dim"].as_u64() {
            return Err(json.fail("time_cond_proj_dim", LCM, width.to_string()));
        }
        json.fixed(FIXED)?;
        if json.value["addition_embed_type"].is_null() {
            return Err(json.fail("addition_embed_type", "\"text_time\" (SDXL's)", "none"));
        }
        json.silu("act_fn")?;
        let raw: Raw = json.to()?;
        let blocks = raw.block_out_channels.len();
        json.size("block_out_channels", blocks, MAX_BLOCKS)?;
        let layers = raw.layers_per_block.expand(json, "layers_per_block", blocks)?;
        json.sizes("layers_per_block", &layers, MAX_LAYERS)?;
        let transformers = Transformers::new(
            json,
            &layers,
            raw.transformer_layers_per_block,
            raw.reverse_transformer_layers_per_block,
        )?;
        let mid_block_type = mid_block_type(json)?;
        let mid = match (mid_block_type, transformers.mid) {
            (UNetMidBlock::CrossAttn, None) => {
                return Err(json.fail(DEPTHS, "at least one entry for the last block", "none"));
            }
            (_, depth) => depth.unwrap_or(0),
        };
        let first = raw.block_out_channels[0];
        let config = Self {
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            sample_size: raw.sample_size.map(|s| json.uniform("sample_size", s)).transpose()?,
            down_block_types: block_types(json, "down_block_types", &raw.down_block_types, "Down", blocks)?,
            up_block_types: block_types(json, "up_block_types", &raw.up_block_types, "Up", blocks)?,
            layers_per_block: layers,
            down_transformer_layers: transformers.down,
            mid_block_type,
            mid_transformer_layers: mid,
            up_transformer_layers: transformers.up,
            num_attention_heads: raw.attention_head_dim.expand(json, "attention_head_dim", blocks)?,
            cross_attention_dim: json.uniform("cross_attention_dim", raw.cross_attention_dim)?,
            use_linear_projection: raw.use_linear_projection,
            norm_num_groups: raw.norm_num_groups,
            norm_eps: json.positive("norm_eps", raw.norm_eps)?,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            time_embed_dim: raw.time_embedding_dim.unwrap_or(first.saturating_mul(4)),
            addition_time_embed_dim: json.given("addition_time_embed_dim", raw.addition_time_embed_dim)?,
            projection_class_embeddings_input_dim: json
                .given("projection_class_embeddings_input_dim", raw.projection_class_embeddings_input_dim)?,
            block_out_channels: raw.block_out_channels,
        };
        config.check(json)?;
        Ok(config)
    }

    fn check(&self, json: &Json) -> Result<(), ConfigError> {
        let channels = &self.block_out_channels;
        json.sizes("block_out_channels", channels, MAX_CHANNELS)?;
        for (field, value) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("sample_size", self.sample_size.unwrap_or(1)),
            ("cross_attention_dim", self.cross_attention_dim),
            ("time_embedding_dim", self.time_embed_dim),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
        ] {
            json.size(field, value, 4 * MAX_CHANNELS)?;
        }
        json.even("block_out_channels", channels[0])?;
        json.even("addition_time_embed_dim", self.addition_time_embed_dim)?;
        let half = channels[0].min(self.addition_time_embed_dim) / 2;
        if !(0.0..half as f32).contains(&self.freq_shift) {
            return Err(json.fail("freq_shift", format!("0 to less than {half}"), self.freq_shift));
        }
        // A divisor of each block's channels also divides the channels of the up path's concatenations.
        json.groups(self.norm_num_groups, channels)?;
        self.check_heads(json)
    }

    /// The number of heads must suit each block that has attention, in either path and in the middle.
    fn check_heads(&self, json: &Json) -> Result<(), ConfigError> {
        let last = self.block_out_channels.len() - 1;
        for (i, (&heads, &channels)) in
            self.num_attention_heads.iter().zip(&self.block_out_channels).enumerate()
        {
            let attends = i == last && self.mid_block_type == UNetMidBlock::CrossAttn
                || self.down_block_types[i] == UNetBlock::CrossAttn
                || self.up_block_types[last - i] == UNetBlock::CrossAttn;
            if attends {
                json.heads("attention_head_dim", heads, channels)?;
            }
        }
        Ok(())
    }
}

const DEPTHS: &str = "transformer_layers_per_block";

/// Transformer depths, one for each ResNet.
struct Transformers {
    down: Vec<Vec<usize>>,
    /// The depth of the middle block, if the last block has an entry.
    mid: Option<usize>,
    up: Vec<Vec<usize>>,
}

impl Transformers {
    fn new(
        json: &Json,
        layers: &[usize],
        depths: PerBlock<PerBlock<usize>>,
        reversed: Option<PerBlock<PerBlock<usize>>>,
    ) -> Result<Self, ConfigError> {
        const DOWN: &str = DEPTHS;
        const UP: &str = "reverse_transformer_layers_per_block";
        let depths = depths.expand(json, DOWN, layers.len())?;
        let nested = depths.iter().any(|d| matches!(d, PerBlock::Each(_)));
        let (up_field, up) = match reversed {
            Some(up) => (UP, up.expand(json, UP, layers.len())?),
            None if nested => {
                return Err(json.fail(UP, "a list, as transformer_layers_per_block has lists in it", "none"));
            }
            None => (DOWN, depths.iter().rev().cloned().collect()),
        };
        let mid = match depths.last() {
            Some(PerBlock::One(depth)) => Some(*depth),
            Some(PerBlock::Each(each)) => each.first().copied(),
            None => None,
        };
        let spread = |field, depths: Vec<PerBlock<usize>>, layers: &mut dyn Iterator<Item = usize>| {
            let each = depths.into_iter().zip(layers).map(|(d, n)| d.expand(json, field, n));
            let each = each.collect::<Result<Vec<_>, _>>()?;
            match each.iter().flatten().find(|&&d| d > MAX_LAYERS) {
                Some(depth) => Err(json.fail(field, format!("at most {MAX_LAYERS}"), depth)),
                None => Ok(each),
            }
        };
        Ok(Self {
            up: spread(up_field, up, &mut layers.iter().rev().map(|n| n + 1))?,
            down: spread(DOWN, depths, &mut layers.iter().copied())?,
            mid,
        })
    }
}

/// An absent field means diffusers' default; `null` is a value of its own.
fn mid_block_type(json: &Json) -> Result<UNetMidBlock, ConfigError> {
    const FIELD: &str = "mid_block_type";
    match json.value.get(FIELD) {
        None => Ok(UNetMidBlock::CrossAttn),
        Some(Value::Null) => Ok(UNetMidBlock::None),
        Some(Value::String(name)) if name == "UNetMidBlock2DCrossAttn" => Ok(UNetMidBlock::CrossAttn),
        Some(Value::String(name)) if name == "UNetMidBlock2D" => Ok(UNetMidBlock::Plain),
        Some(other) => {
            let expected =
                "\"UNetMidBlock2DCrossAttn\", \"UNetMidBlock2D\" or null (nothing else is supported)";
            Err(json.fail(FIELD, expected, other))
        }
    }
}

fn block_types(
    json: &Json,
    field: &str,
    names: &[String],
    path: &str,
    blocks: usize,
) -> Result<Vec<UNetBlock>, ConfigError> {
    let (plain, cross) = (format!("{path}Block2D"), format!("CrossAttn{path}Block2D"));
    json.length(field, names.len(), blocks)?;
    json.choice(field, names, &[&plain, &cross])?;
    let kind = |name: &String| if *name == cross { UNetBlock::CrossAttn } else { UNetBlock::Plain };
    Ok(names.iter().map(kind).collect())
}
