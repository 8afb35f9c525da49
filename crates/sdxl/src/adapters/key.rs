//! Parses the keys of LoRA files: the network, the layer, and the part of what is stored for the layer.

use calotype_models::Component;

use super::Modules;

/// A part of what is stored for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Down,
    Up,
    Mid,
    UpBias,
    Alpha,
    /// DoRA's magnitudes, by LyCORIS and kohya: with the dimensions of the weight.
    DoraScale,
    /// DoRA's magnitudes, by PEFT: one for each output.
    MagnitudeVector,
    /// LoHa: w1_a, w1_b, w2_a, w2_b and the cores t1, t2.
    HadaA(usize),
    HadaB(usize),
    HadaCore(usize),
    /// LoKr: w1 and w2, or their own factors, and the core t2.
    Lokr(usize),
    LokrA(usize),
    LokrB(usize),
    LokrCore,
    Difference,
    BiasDifference,
    OftBlocks,
    OftRescale,
}

/// The suffixes of the parts in all layouts. `_lora` before a suffix ends the name of an attention processor's layer.
const SUFFIXES: [(&str, Part); 36] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_mid.weight", Part::Mid),
    (".lora_up.bias", Part::UpBias),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_B.bias", Part::UpBias),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".dora_scale", Part::DoraScale),
    (".lora_magnitude_vector", Part::MagnitudeVector),
    (".lora_magnitude_vector.weight", Part::MagnitudeVector),
    (".hada_w1_a", Part::HadaA(0)),
    (".hada_w1_b", Part::HadaB(0)),
    (".hada_w2_a", Part::HadaA(1)),
    (".hada_w2_b", Part::HadaB(1)),
    (".hada_t1", Part::HadaCore(0)),
    (".hada_t2", Part::HadaCore(1)),
    (".lokr_w1", Part::Lokr(0)),
    (".lokr_w1_a", Part::LokrA(0)),
    (".lokr_w1_b", Part::LokrB(0)),
    (".lokr_w2", Part::Lokr(1)),
    (".lokr_w2_a", Part::LokrA(1)),
    (".lokr_w2_b", Part::LokrB(1)),
    (".lokr_t2", Part::LokrCore),
    (".diff", Part::Difference),
    (".diff_b", Part::BiasDifference),
    (".w_norm", Part::Difference),
    (".b_norm", Part::BiasDifference),
    (".oft_blocks", Part::OftBlocks),
    (".rescale", Part::OftRescale),
];

/// PEFT's suffixes, if the key contains the adapter's name: `….lora_A.default.weight`.
const NAMED: [(&str, Part); 3] =
    [(".lora_A.", Part::Down), (".lora_B.", Part::Up), (".lora_magnitude_vector.", Part::MagnitudeVector)];

/// Prefixes that programs put before the names of a whole network.
const WRAPPERS: [&str; 2] = ["base_model.model.", "module."];

/// The prefixes of a network's layers. Those of kohya and LyCORIS come before names with underscores; those of diffusers,
/// OneTrainer and ComfyUI before paths. Files of the UNet alone have none.
const PREFIXES: [(&str, Component); 16] = [
    ("lora_unet_", Component::UNet),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
    ("lycoris_unet_", Component::UNet),
    ("lycoris_te1_", Component::TextEncoder),
    ("lycoris_te2_", Component::TextEncoder2),
    ("lycoris_", Component::UNet),
    ("unet.", Component::UNet),
    ("text_encoder.", Component::TextEncoder),
    ("text_encoder_2.", Component::TextEncoder2),
    ("diffusion_model.", Component::UNet),
    ("model.diffusion_model.", Component::UNet),
    ("clip_l.", Component::TextEncoder),
    ("clip_g.", Component::TextEncoder2),
    ("text_encoders.clip_l.transformer.", Component::TextEncoder),
    ("text_encoders.clip_g.transformer.", Component::TextEncoder2),
];

/// The beginnings of SDXL's original layer names.
const ORIGINAL: [&str; 6] =
    ["input_blocks", "middle_block", "output_blocks", "time_embed.", "label_emb", "out."];

/// A parsed key: a part of what is stored for the layer at `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoraKey {
    pub component: Component,
    pub path: String,
    pub part: Part,
}

/// Parses a key. The path is looked up among the model's layers. Without a model, it is used as it is.
///
/// # Errors
/// The key is not that of a LoRA, or there is no such layer. The text describes why.
pub(super) fn parse(key: &str, modules: Option<&Modules>) -> Result<LoraKey, String> {
    let Some((name, part)) = split(key) else { return Err(not_lora(key)) };
    let name = WRAPPERS.iter().fold(name, |name, wrapper| name.strip_prefix(wrapper).unwrap_or(name));
    let found = PREFIXES.iter().find_map(|(prefix, c)| Some((name.strip_prefix(prefix)?, *c)));
    let (name, component) = found.unwrap_or((name, Component::UNet));
    let path = current_path(component, name);
    let Some(modules) = modules else {
        let whole = name.contains('.') || ["conv_in", "conv_out"].contains(&name);
        let ambiguous = !whole || ORIGINAL.iter().any(|block| name.starts_with(block));
        return match ambiguous {
            true => {
                Err("kohya's names can only be told apart with the model that they are for (--model)".into())
            }
            false => Ok(LoraKey { component, path, part }),
        };
    };
    // transformers 5 names the first encoder's layers without the prefix.
    let paths = [path.clone(), format!("text_model.{path}")];
    let fits = |path: &str| {
        let shape = modules.weight(component, path);
        // A norm has whole differences only.
        let any = matches!(part, Part::Difference | Part::BiasDifference);
        shape.is_some_and(|shape| any || shape.len() > 1)
    };
    if let Some(path) = paths.into_iter().find(|path| fits(path)) {
        return Ok(LoraKey { component, path, part });
    }
    let layer = |name: &String| modules.by_underscores(component, name).filter(|path| fits(path));
    match underscored(component, name).iter().find_map(layer) {
        Some(path) => Ok(LoraKey { component, path: path.into(), part }),
        None if found.is_none() && name.starts_with("text_model") => {
            Err("of which text encoder? Expected text_encoder. or text_encoder_2. before it".into())
        }
        None => Err(format!("the model's {} has no such layer", component.name())),
    }
}

/// Splits a key into a layer's name and a part.
fn split(key: &str) -> Option<(&str, Part)> {
    let plain = SUFFIXES.iter().find_map(|(suffix, part)| Some((key.strip_suffix(suffix)?, *part)));
    let named = || {
        NAMED.iter().find_map(|(mark, part)| {
            let (name, adapter) = key.strip_suffix(".weight")?.rsplit_once(mark)?;
            (!adapter.is_empty() && !adapter.contains('.')).then_some((name, *part))
        })
    };
    plain.or_else(named)
}

/// The current path in diffusers. In old files, attention processors held the LoRA of their attention.
fn current_path(component: Component, path: &str) -> String {
    let path = path.replace(".processor.", ".");
    let (block, layer) = path.rsplit_once('.').unwrap_or(("", &path));
    match renamed(component, layer) {
        Some(layer) if !block.is_empty() => format!("{block}.{layer}"),
        _ => path,
    }
}

/// The current name of an attention's last layer, or of a text encoder's projections, that processors named differently.
fn renamed(component: Component, layer: &str) -> Option<&'static str> {
    Some(match (component, layer) {
        (Component::UNet, "to_out") => "to_out.0",
        (Component::TextEncoder | Component::TextEncoder2, "to_q") => "q_proj",
        (Component::TextEncoder | Component::TextEncoder2, "to_k") => "k_proj",
        (Component::TextEncoder | Component::TextEncoder2, "to_v") => "v_proj",
        (Component::TextEncoder | Component::TextEncoder2, "to_out") => "out_proj",
        _ => return None,
    })
}

/// The names with underscores for dots that a layer may have.
fn underscored(component: Component, name: &str) -> Vec<String> {
    let plain = name.replace('.', "_").replace("_processor_", "_");
    let mut names = vec![plain.clone()];
    for old in ["to_q", "to_k", "to_v", "to_out"] {
        let Some(block) = plain.strip_suffix(old).filter(|block| block.ends_with('_')) else { continue };
        names.extend(renamed(component, old).map(|new| format!("{block}{}", new.replace('.', "_"))));
    }
    let prefixed: Vec<String> = names.iter().map(|name| format!("text_model_{name}")).collect();
    names.extend(prefixed);
    names
}

/// The message about a key that no LoRA has. The message names the kind of the adapter, if people may take the adapter for a LoRA.
fn not_lora(key: &str) -> String {
    const READ: &str = "only LoRA, LoHa, LoKr, DoRA, OFT and whole differences";
    const OTHERS: [(&str, &str); 13] = [
        (".lora_embedding_", "LoRA of an embedding table is not supported"),
        (".oft_", "OFT in this layout is not supported, only LyCORIS' and kohya's (oft_blocks)"),
        (".boft_", "BOFT in this layout is not supported, only LyCORIS' (oft_blocks)"),
        (".on_input", "(IA)³ is not supported, {READ}"),
        (".ia3_l", "(IA)³ is not supported, {READ}"),
        (".a1.weight", "GLoRA is not supported, {READ}"),
        (".b1.weight", "GLoRA is not supported, {READ}"),
        (".vera_", "VeRA is not supported, {READ}"),
        (".set_weight", "a whole new weight (.set_weight) is not supported, {READ}"),
        ("scale_weight", "8-bit floats with scales of their own are not supported"),
        ("scaled_fp8", "8-bit floats with scales of their own are not supported"),
        ("emb_params", "an embedding for Stable Diffusion 1 or 2, not SDXL"),
        ("string_to_param", "an embedding for Stable Diffusion 1 or 2, not SDXL"),
    ];
    let key = format!("{key}$"); // a mark that ends with this sign is a suffix
    let known = OTHERS.iter().find(|(mark, _)| key.contains(mark));
    known.map_or("no key of a LoRA or of an embedding", |(_, why)| why).replace("{READ}", READ)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the suffixes that each program gives to the parts of a layer's LoRA, without a model.
    #[test]
    fn keys_of_every_program() {
        let layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let text = "text_model.encoder.layers.0.self_attn.q_proj";
        let (unet, first, second) = (Component::UNet, Component::TextEncoder, Component::TextEncoder2);
        for (key, component, path, part) in [
            (format!("base_model.model.{layer}.lora_A.weight"), unet, layer, Part::Down),
            (format!("base_model.model.unet.{layer}.lora_B.default.weight"), unet, layer, Part::Up),
            (format!("{layer}.lora_A.default_0.weight"), unet, layer, Part::Down),
            (format!("diffusion_model.{layer}.lora_up.weight"), unet, layer, Part::Up),
            (format!("unet.{}.lora.down.weight", layer.trim_end_matches(".0")), unet, layer, Part::Down),
            (format!("text_encoder.{text}.lora_A.weight"), first, text, Part::Down),
            (format!("clip_g.{text}.alpha"), second, text, Part::Alpha),
            (
                "text_encoder_2.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight".into(),
                second,
                text,
                Part::Up,
            ),
        ] {
            assert_eq!(parse(&key, None), Ok(LoraKey { component, path: path.into(), part }), "{key}");
        }
        for key in ["lora_unet_mid_block_x.alpha", "unet.input_blocks.4.1.proj_in.lora_down.weight"] {
            assert!(parse(key, None).expect_err("ambiguous").contains("--model"), "{key}");
        }
        for (key, says) in [
            ("a.lora_A.b.c.weight", "no key of a LoRA"),
            ("a.oft_R.weight", "OFT"),
            ("a.on_input", "(IA)³ is not supported, only LoRA, LoHa"),
            ("a.a1.weight", "GLoRA"),
        ] {
            assert!(parse(key, None).expect_err("refused").contains(says), "{key}");
        }
    }

    /// Protects the names with underscores of old processors' layers.
    #[test]
    fn names_with_underscores() {
        let names = underscored(Component::UNet, "mid_block.attn1.processor.to_out");
        assert!(names.contains(&"mid_block_attn1_to_out_0".into()), "{names:?}");
        let names = underscored(Component::TextEncoder, "encoder_layers_0_self_attn_to_q");
        assert!(names.contains(&"text_model_encoder_layers_0_self_attn_q_proj".into()), "{names:?}");
    }
}
