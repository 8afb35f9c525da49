//! The names of tensors in Stability's original layout (`sgm`) beside those of diffusers: one table for both ways.

use std::collections::BTreeMap;

use super::derive::Shapes;
use crate::config::{UNetBlock, UNetConfig, VaeConfig};
use crate::json::{MAX_BLOCKS, MAX_LAYERS};
use crate::weights::Part;

/// The names of one network's tensors in both layouts. An entry is a whole key, or the beginning of keys up to a dot.
#[derive(Clone, Debug, Default)]
pub struct Names {
    by_original: BTreeMap<String, Vec<(String, Part)>>,
    by_diffusers: BTreeMap<String, (String, Part)>,
}

/// The layers of a UNet outside of its blocks: diffusers' name, the original name.
const UNET: [(&str, &str); 7] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];
/// The layers of a ResNet of the UNet.
const UNET_RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];
/// The layers of the VAE outside of its blocks, those of its ResNets, and those of its attention.
const VAE: [&str; 6] = [
    "encoder.conv_in",
    "encoder.conv_out",
    "decoder.conv_in",
    "decoder.conv_out",
    "quant_conv",
    "post_quant_conv",
];
const VAE_RESNET: [(&str, &str); 5] = [
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("conv_shortcut", "nin_shortcut"),
];
const VAE_ATTENTION: [(&str, &str); 4] =
    [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];
/// The layers of an OpenCLIP layer that are the same layers in Hugging Face's.
const CLIP_LAYER: [(&str, &str); 5] = [
    ("layer_norm1", "ln_1"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

impl Names {
    /// SDXL's UNet. `layers` is the number of ResNets of each down block, `up_attention` whether each up block has
    /// attention. The original layout counts the blocks over all levels.
    pub fn unet(layers: &[usize], up_attention: &[bool]) -> Self {
        let mut names = Self::default();
        names.layers("", "", &UNET);
        let last = layers.len().saturating_sub(1);
        let mut n = 1; // input block 0 is conv_in
        for (block, &count) in layers.iter().enumerate() {
            for i in 0..count {
                names.unet_layer(&format!("down_blocks.{block}"), i, &format!("input_blocks.{n}"));
                n += 1;
            }
            if block < last {
                names.add(
                    format!("down_blocks.{block}.downsamplers.0.conv"),
                    format!("input_blocks.{n}.0.op"),
                );
                n += 1;
            }
        }
        names.layers("mid_block.resnets.0.", "middle_block.0.", &UNET_RESNET);
        names.add("mid_block.attentions.0", "middle_block.1");
        names.layers("mid_block.resnets.1.", "middle_block.2.", &UNET_RESNET);
        n = 0;
        for (block, &count) in layers.iter().rev().enumerate() {
            for i in 0..=count {
                names.unet_layer(&format!("up_blocks.{block}"), i, &format!("output_blocks.{n}"));
                n += 1;
            }
            if block < last {
                let place = if up_attention.get(block).copied().unwrap_or(false) { 2 } else { 1 };
                let original = format!("output_blocks.{}.{place}.conv", n - 1);
                names.add(format!("up_blocks.{block}.upsamplers.0.conv"), original);
            }
        }
        names
    }

    /// The UNet of a config.
    pub fn of_unet(config: &UNetConfig) -> Self {
        let attention = config.up_block_types.iter().map(|kind| *kind == UNetBlock::CrossAttn);
        Self::unet(&config.layers_per_block, &attention.collect::<Vec<_>>())
    }

    /// SDXL's VAE with this many levels, and this many ResNets in each level of the encoder. The original layout counts the
    /// decoder's levels backwards.
    pub fn vae(levels: usize, layers: usize) -> Self {
        let mut names = Self::default();
        names.layers("", "", &VAE.map(|name| (name, name)));
        for (side, new, old, count, sampler) in [
            ("encoder", "down_blocks", "down", layers, "downsample"),
            ("decoder", "up_blocks", "up", layers + 1, "upsample"),
        ] {
            names.add(format!("{side}.conv_norm_out"), format!("{side}.norm_out"));
            for (i, block) in ["block_1", "block_2"].iter().enumerate() {
                names.layers(
                    &format!("{side}.mid_block.resnets.{i}."),
                    &format!("{side}.mid.{block}."),
                    &VAE_RESNET,
                );
            }
            let (attention, original) =
                (format!("{side}.mid_block.attentions.0"), format!("{side}.mid.attn_1"));
            names.add(format!("{attention}.group_norm"), format!("{original}.norm"));
            for (new, old) in VAE_ATTENTION {
                names.add_part(
                    format!("{attention}.{new}.weight"),
                    format!("{original}.{old}.weight"),
                    Part::Pointwise,
                );
                names.add(format!("{attention}.{new}.bias"), format!("{original}.{old}.bias"));
            }
            for level in 0..levels {
                let numbered = if side == "decoder" { levels - 1 - level } else { level };
                let (new, old) = (format!("{side}.{new}.{level}"), format!("{side}.{old}.{numbered}"));
                for i in 0..count {
                    names.layers(&format!("{new}.resnets.{i}."), &format!("{old}.block.{i}."), &VAE_RESNET);
                }
                names.add(format!("{new}.{sampler}rs.0.conv"), format!("{old}.{sampler}.conv"));
            }
        }
        names
    }

    /// The VAE with these shapes, by original keys.
    pub(super) fn of_vae_shapes(shapes: &Shapes) -> Self {
        let level = |level: usize| format!("encoder.down.{level}.block.0.conv1.weight");
        let layer = |i: usize| format!("encoder.down.0.block.{i}.conv1.weight");
        let count = |most: usize, key: &dyn Fn(usize) -> String| {
            (0..most).take_while(|i| shapes.contains_key(&key(*i))).count()
        };
        Self::vae(count(MAX_BLOCKS, &level), count(MAX_LAYERS, &layer))
    }

    /// OpenCLIP's text encoder with these shapes, by original keys.
    pub(super) fn of_open_clip(shapes: &Shapes) -> Self {
        let layer = |i: usize| format!("transformer.resblocks.{i}.ln_1.weight");
        Self::open_clip((0..MAX_LAYERS).take_while(|i| shapes.contains_key(&layer(*i))).count())
    }

    /// The VAE of a config.
    pub fn of_vae(config: &VaeConfig) -> Self {
        Self::vae(config.block_out_channels.len(), config.layers_per_block)
    }

    /// OpenCLIP's text encoder with this many layers. The projection is stored transposed as `text_projection`, and in Hugging
    /// Face's order as `text_projection.weight`, which some programs write.
    pub fn open_clip(layers: usize) -> Self {
        let mut names = Self::default();
        names.add("text_model.embeddings.token_embedding", "token_embedding");
        names.add("text_model.embeddings.position_embedding.weight", "positional_embedding");
        names.add("text_model.final_layer_norm", "ln_final");
        names.add("text_projection.weight", "text_projection.weight");
        names.add_part("text_projection.weight", "text_projection", Part::Transposed); // the usual one, so the last
        for i in 0..layers {
            let (new, old) =
                (format!("text_model.encoder.layers.{i}."), format!("transformer.resblocks.{i}."));
            names.layers(&new, &old, &CLIP_LAYER);
            for (third, name) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
                for kind in ["weight", "bias"] {
                    let (new, old) =
                        (format!("{new}self_attn.{name}.{kind}"), format!("{old}attn.in_proj_{kind}"));
                    names.add_part(new, old, Part::Third(third));
                }
            }
        }
        names
    }

    /// diffusers' keys of the tensors that an original key's tensor contains. Empty: the network has no such tensor.
    pub fn diffusers(&self, original: &str) -> Vec<(String, Part)> {
        // `text_projection.weight` is an entry of its own, and not the weight of a layer `text_projection`.
        let found = beginnings(original).find_map(|(start, rest)| Some((self.by_original.get(start)?, rest)));
        let Some((entries, rest)) = found else { return Vec::new() };
        let whole = entries.iter().filter(|(_, part)| rest.is_empty() || *part == Part::Whole);
        whole.map(|(name, part)| (format!("{name}{rest}"), *part)).collect()
    }

    /// The original key of the tensor that contains the tensor with this key of diffusers.
    pub fn original(&self, diffusers: &str) -> Option<(String, Part)> {
        let found =
            beginnings(diffusers).find_map(|(start, rest)| Some((self.by_diffusers.get(start)?, rest)));
        let ((name, part), rest) = found?;
        (rest.is_empty() || *part == Part::Whole).then(|| (format!("{name}{rest}"), *part))
    }

    /// The ResNet and the attention of one layer of a UNet's block.
    fn unet_layer(&mut self, block: &str, i: usize, original: &str) {
        self.layers(&format!("{block}.resnets.{i}."), &format!("{original}.0."), &UNET_RESNET);
        self.add(format!("{block}.attentions.{i}"), format!("{original}.1"));
    }

    fn layers(&mut self, new: &str, old: &str, layers: &[(&str, &str)]) {
        for (a, b) in layers {
            self.add(format!("{new}{a}"), format!("{old}{b}"));
        }
    }

    fn add(&mut self, new: impl Into<String>, old: impl Into<String>) {
        self.add_part(new, old, Part::Whole);
    }

    fn add_part(&mut self, new: impl Into<String>, old: impl Into<String>, part: Part) {
        let (new, old) = (new.into(), old.into());
        self.by_original.entry(old.clone()).or_default().push((new.clone(), part));
        self.by_diffusers.insert(new, (old, part));
    }
}

/// A key, and its beginnings up to a dot, the longest first, each with the rest of the key.
fn beginnings(key: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::once(key.len()).chain(key.rmatch_indices('.').map(|(at, _)| at)).map(|at| key.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the numbering of SDXL's UNet, as in Stability's checkpoint and kohya's files, both ways.
    #[test]
    fn the_unet_is_numbered_as_published() {
        let names = Names::unet(&[2, 2, 2], &[true, true, false]);
        for (new, old) in [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            ("conv_norm_out.bias", "out.0.bias"),
            ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
            (
                "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2.weight",
                "input_blocks.8.1.transformer_blocks.9.ff.net.2.weight",
            ),
            ("mid_block.attentions.0.norm.weight", "middle_block.1.norm.weight"),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
            ("up_blocks.1.attentions.0.norm", "output_blocks.3.1.norm"),
            ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
            ("add_embedding.linear_2", "label_emb.0.2"),
        ] {
            assert_eq!(names.original(new), Some((old.into(), Part::Whole)));
            assert_eq!(names.diffusers(old), [(new.into(), Part::Whole)]);
        }
        assert_eq!(names.original("down_blocks.9.resnets.0.conv1"), None);
        assert_eq!(names.diffusers("input_blocks.1.0.in_layers.9.weight"), []);
        // The refiner's first up block has no attention, so its upsampler comes second.
        let refiner = Names::unet(&[2, 2, 2, 2], &[false, true, true, false]);
        assert_eq!(
            refiner.diffusers("output_blocks.2.1.conv.bias")[0].0,
            "up_blocks.0.upsamplers.0.conv.bias"
        );
    }

    /// Protects the VAE's decoder, which counts backwards, and its attention, which the original layout stores as convolutions.
    #[test]
    fn the_decoder_counts_backwards() {
        let names = Names::vae(4, 2);
        for (new, old, part) in [
            ("decoder.up_blocks.0.resnets.2.conv1.bias", "decoder.up.3.block.2.conv1.bias", Part::Whole),
            ("decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias", Part::Whole),
            (
                "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
                "encoder.down.1.block.0.nin_shortcut.bias",
                Part::Whole,
            ),
            (
                "decoder.mid_block.attentions.0.to_out.0.weight",
                "decoder.mid.attn_1.proj_out.weight",
                Part::Pointwise,
            ),
            ("encoder.mid_block.attentions.0.group_norm.bias", "encoder.mid.attn_1.norm.bias", Part::Whole),
        ] {
            assert_eq!(names.original(new), Some((old.into(), part)));
            assert_eq!(names.diffusers(old), [(new.into(), part)]);
        }
    }

    /// Protects the projection, which is square and of which no shape tells the order: one spelling is transposed, one is not.
    #[test]
    fn the_projection_has_two_spellings() {
        let names = Names::open_clip(1);
        let projection = |part| [("text_projection.weight".to_owned(), part)];
        assert_eq!(names.diffusers("text_projection"), projection(Part::Transposed));
        assert_eq!(names.diffusers("text_projection.weight"), projection(Part::Whole));
        assert_eq!(
            names.original("text_projection.weight"),
            Some(("text_projection".into(), Part::Transposed))
        );
        let thirds = names.diffusers("transformer.resblocks.0.attn.in_proj_bias");
        assert_eq!(thirds[2], ("text_model.encoder.layers.0.self_attn.v_proj.bias".into(), Part::Third(2)));
    }
}
