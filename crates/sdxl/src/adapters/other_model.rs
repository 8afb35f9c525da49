//! Identifies the model that a file of trained weights is for, if it is not SDXL, by keys and widths.

use safetensors::tensor::TensorInfo;

/// Marks of other models' keys, with underscores for dots, and the models. A mark matches anywhere in a key, or with `^` at its
/// beginning. The first mark that matches counts.
const MARKS: [(&str, &str); 26] = [
    ("^model_diffusion_model_", WHOLE),
    ("^first_stage_model_", WHOLE),
    ("^conditioner_embedders_", WHOLE),
    ("^cond_stage_model_", WHOLE),
    ("motion_modules", "AnimateDiff (a motion module)"),
    ("^control_model", "a ControlNet"),
    ("^controlnet", "a ControlNet"),
    ("^ip_adapter", "an IP-Adapter"),
    ("^image_proj", "an IP-Adapter"),
    ("_prior_unet_", "Stable Cascade"),
    ("kv_mapper", "Stable Cascade"),
    ("txt_mlp", "Qwen-Image"),
    ("txt_mod_1", "Qwen-Image"),
    ("single_transformer_blocks", FLUX),
    ("double_blocks", FLUX),
    ("single_blocks", FLUX),
    ("joint_blocks", "Stable Diffusion 3"),
    ("joint_transformer_blocks", "Stable Diffusion 3"),
    ("^blocks_", "Wan or another video model"),
    ("^layers_", "Lumina or Z-Image"),
    ("adaln_single", "PixArt"),
    ("caption_projection", "PixArt"),
    ("^transformer_blocks_0_attn_add_", "Stable Diffusion 3"),
    ("_attn_add_q_proj", "Stable Diffusion 3"),
    ("^lora_te3_", "Stable Diffusion 3"),
    ("text_encoder_3_", "Stable Diffusion 3"),
];
const FLUX: &str = "FLUX or a model built like it";
const WHOLE: &str = "a whole model";
const V1: &str = "Stable Diffusion 1.x";
const V2: &str = "Stable Diffusion 2.x";

/// Prefixes that programs put before a network's own names.
const PREFIXES: [&str; 5] =
    ["base_model.model.", "diffusion_model.", "transformer.", "lora_transformer_", "lora_unet_"];

/// A tensor's key with underscores for dots: whole, and without the programs' prefixes.
struct Named<'a> {
    whole: String,
    own: String,
    info: &'a TensorInfo,
}

/// The note for an error message, if the tensors seem to be something other than trained weights for SDXL.
pub(super) fn note<'a>(tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>) -> Option<String> {
    Some(match of(tensors)? {
        WHOLE => "the file looks like a whole model in one file, not like trained weights".into(),
        model => format!("the file looks to be for {model}, not for SDXL"),
    })
}

/// The model that the tensors seem to be for. `None`: SDXL, or unknown.
fn of<'a>(tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>) -> Option<&'static str> {
    let all: Vec<Named> = tensors.map(|(key, info)| Named::new(key, info)).collect();
    let marked = MARKS.iter().find(|(mark, _)| all.iter().any(|tensor| tensor.has(mark)));
    let by_width = || all.iter().find_map(Named::by_width);
    let transformer = || {
        let of_blocks = all.iter().filter(|tensor| tensor.has("^transformer_blocks_"));
        let widths: Vec<_> = of_blocks.map(Named::inputs).collect();
        match widths.contains(&Some(1152)) {
            _ if widths.is_empty() => None,
            true => Some("PixArt"),
            false => Some("a transformer such as Stable Diffusion 3 or PixArt"),
        }
    };
    marked.map(|(_, model)| *model).or_else(by_width).or_else(transformer)
}

impl<'a> Named<'a> {
    fn new(key: &str, info: &'a TensorInfo) -> Self {
        let own = PREFIXES.iter().fold(key, |key, prefix| key.strip_prefix(prefix).unwrap_or(key));
        Self { whole: key.replace('.', "_"), own: own.replace('.', "_"), info }
    }

    fn has(&self, mark: &str) -> bool {
        match mark.strip_prefix('^') {
            Some(start) => self.whole.starts_with(start) || self.own.starts_with(start),
            None => self.whole.contains(mark),
        }
    }

    /// The input channels of a LoRA's down weight or of its like in LoHa. `None`: the tensor is another.
    fn inputs(&self) -> Option<usize> {
        let down = ["lora_down", "lora_A", "_down_weight", "hada_w1_b", "hada_w2_b"]
            .iter()
            .any(|part| self.whole.contains(part));
        self.info.shape.get(1).copied().filter(|_| down)
    }

    /// Identifies Stable Diffusion versions before SDXL: by the width of the text states, or by blocks and names that SDXL's files do not
    /// have.
    fn by_width(&self) -> Option<&'static str> {
        let is_any = |parts: &[&str]| parts.iter().any(|part| self.whole.contains(part));
        let text = is_any(&["attn2_to_k", "attn2_to_v"]) || self.whole.starts_with("lora_te_");
        // SDXL's UNet has one block less, and no attention in its outermost blocks.
        let outer =
            is_any(&["down_blocks_0_attentions", "input_blocks_1_1_", "input_blocks_2_1_", "up_blocks_3_"]);
        match self.inputs() {
            Some(768) if text => Some(V1),
            Some(1024) if text => Some(V2),
            Some(1280) if text => Some("SDXL's refiner"),
            _ if outer || self.whole.starts_with("lora_te_") => Some("Stable Diffusion 1.x or 2.x"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::Dtype;

    use super::*;

    /// Protects the recognition of other models by a key or by a tensor's width, with any prefix. SDXL's files are not taken
    /// for another model's.
    #[test]
    fn models_by_their_keys() {
        let attn = "attentions_0_transformer_blocks_0_attn";
        for (key, width, model) in [
            ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight".into(), 768, Some(V1)),
            ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight".into(), 1024, Some(V2)),
            (format!("lora_unet_down_blocks_1_{attn}2_to_k.lora_down.weight"), 768, Some(V1)),
            (
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight".into(),
                1024,
                Some(V2),
            ),
            (
                format!("lora_unet_down_blocks_0_{attn}1_to_q.lora_down.weight"),
                320,
                Some("Stable Diffusion 1.x or 2.x"),
            ),
            (format!("lora_unet_down_blocks_1_{attn}2_to_v.hada_w1_b"), 1024, Some(V2)),
            (format!("lora_unet_up_blocks_3_{attn}1_to_q.lokr_w1"), 8, Some("Stable Diffusion 1.x or 2.x")),
            ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight".into(), 3072, Some(FLUX)),
            ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight".into(), 3072, Some(FLUX)),
            (
                "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight".into(),
                1536,
                Some("Stable Diffusion 3"),
            ),
            ("transformer.transformer_blocks.0.txt_mlp.net.2.lora_A.weight".into(), 3072, Some("Qwen-Image")),
            ("base_model.model.transformer_blocks.0.attn1.to_q.lora_A.weight".into(), 1152, Some("PixArt")),
            (
                "diffusion_model.blocks.0.self_attn.q.lora_A.weight".into(),
                5120,
                Some("Wan or another video model"),
            ),
            ("model.diffusion_model.input_blocks.0.0.weight".into(), 4, Some(WHOLE)),
            (format!("lora_unet_down_blocks_1_{attn}2_to_k.lora_down.weight"), 2048, None),
            ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight".into(), 768, None),
        ] {
            let info = TensorInfo { dtype: Dtype::F32, shape: vec![4, width], data_offsets: (0, 0) };
            assert_eq!(of([(key.as_str(), &info)].into_iter()), model, "{key}");
        }
    }
}
