//! SwinIR's sizes. Its files have no config: the shapes of their tensors tell.

use std::collections::BTreeMap;

use crate::json::MAX_LAYERS;
use crate::weights::{Weights, WeightsError, tuple};

/// The largest side of a window.
const MAX_WINDOW: usize = 16;

/// SwinIR's sizes. Pictures are RGB, patches are pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct SwinIrConfig {
    /// Channels.
    pub embed_dim: usize,
    /// Blocks of each layer, which are groups of blocks.
    pub depths: Vec<usize>,
    /// Attention heads of each layer.
    pub num_heads: Vec<usize>,
    /// Pixels of a window's side.
    pub window_size: usize,
    /// Channels inside an MLP.
    pub mlp_dim: usize,
    /// Channels of the upsampler.
    pub num_feat: usize,
    /// How much larger the picture becomes: 2 or 4.
    pub upscale: usize,
    /// Whether layers end with three convolutions ("3conv") instead of one.
    pub three_convs: bool,
}

/// The tensors of a file by key.
struct Shapes<'a> {
    weights: &'a Weights,
    all: BTreeMap<&'a str, &'a [usize]>,
}

impl SwinIrConfig {
    /// Tells the sizes of a network from its tensors, whose attention has `query`, `key` and `value` for `qkv`.
    ///
    /// # Errors
    /// The tensors are not SwinIR's, or of one with another upsampler.
    pub(crate) fn of(weights: &Weights) -> Result<Self, WeightsError> {
        let shapes = Shapes { weights, all: weights.shapes().collect() };
        shapes.check_upsampler()?;
        let [embed_dim, ..] = shapes.of::<4>("conv_first.weight")?;
        let layers = shapes.count("layers.");
        let depths: Vec<usize> =
            (0..layers).map(|i| shapes.count(&format!("layers.{i}.residual_group.blocks."))).collect();
        let table =
            |i: usize| format!("layers.{i}.residual_group.blocks.0.attn.relative_position_bias_table");
        let num_heads = (0..layers)
            .map(|i| Ok(shapes.of::<2>(&table(i))?[1]))
            .collect::<Result<Vec<_>, WeightsError>>()?;
        let [rows, _] = shapes.of::<2>(&table(0))?;
        let window_size = rows.isqrt().div_ceil(2);
        if window_size == 0 || window_size > MAX_WINDOW || (2 * window_size - 1).pow(2) != rows {
            let expected = format!("(2 w − 1)² rows for a window of w, at most {MAX_WINDOW}");
            return Err(shapes.mismatch(&table(0), expected));
        }
        let mlp = "layers.0.residual_group.blocks.0.mlp.fc1.weight";
        for key in ["conv_first.weight", mlp, "conv_before_upsample.0.weight"] {
            if shapes.all.get(key).is_some_and(|shape| shape.first() == Some(&0)) {
                return Err(shapes.mismatch(key, "at least one row".into()));
            }
        }
        if let Some(i) = (0..layers).find(|i| num_heads[*i] == 0 || !embed_dim.is_multiple_of(num_heads[*i]))
        {
            return Err(shapes.mismatch(&table(i), format!("heads that divide {embed_dim} channels")));
        }
        Ok(Self {
            embed_dim,
            depths,
            num_heads,
            window_size,
            mlp_dim: shapes.of::<2>("layers.0.residual_group.blocks.0.mlp.fc1.weight")?[0],
            num_feat: shapes.of::<4>("conv_before_upsample.0.weight")?[0],
            upscale: if shapes.all.contains_key("conv_up2.weight") { 4 } else { 2 },
            three_convs: shapes.all.contains_key("conv_after_body.0.weight"),
        })
    }
}

impl Shapes<'_> {
    /// The number of modules of a list, `prefix0.`, `prefix1.`, …
    fn count(&self, prefix: &str) -> usize {
        let number = |i: &usize| {
            let module = format!("{prefix}{i}.");
            self.all.range(&module[..]..).next().is_some_and(|(key, _)| key.starts_with(&module))
        };
        (0..MAX_LAYERS).take_while(number).count()
    }

    fn of<const N: usize>(&self, key: &str) -> Result<[usize; N], WeightsError> {
        let shape = self.all.get(key).ok_or_else(|| self.weights.missing(key, "the tensors of a SwinIR"))?;
        (*shape).try_into().map_err(|_| self.mismatch(key, format!("{N} dimensions")))
    }

    fn mismatch(&self, key: &str, expected: String) -> WeightsError {
        self.weights.mismatch(key, expected, tuple(self.all[key]))
    }

    /// That the network ends with the upsampler for real pictures. The other three are told by their tensors.
    fn check_upsampler(&self) -> Result<(), WeightsError> {
        if self.all.keys().any(|key| key.starts_with("swin2sr.")) {
            let expected = "the folder with their config.json";
            return Err(self.weights.unsuitable(format!("Swin2SR's weights alone: expected {expected}")));
        }
        let has = |key: &str| self.all.contains_key(key);
        let found =
            match (has("conv_up1.weight"), has("upsample.0.weight"), has("conv_before_upsample.0.weight")) {
                (true, ..) => return Ok(()),
                (_, true, true) => "pixelshuffle",
                (_, true, false) => "pixelshuffledirect",
                _ if has("conv_first.weight") && has("conv_last.weight") => "none, as for denoising",
                _ => return Ok(()),
            };
        let expected = "\"nearest+conv\", as models for real pictures have (nothing else is supported)";
        Err(self.weights.unsuitable(format!("SwinIR's upsampler: expected {expected}, found {found}")))
    }
}
