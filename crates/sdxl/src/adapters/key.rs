//! What a key of a LoRA file says: which layer of which network, and which part of its LoRA.

use crate::config::Component;

use super::Modules;

/// A part of a layer's LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Down,
    Up,
    Alpha,
}

/// How the layouts call the parts. `_lora` before them ends the name of an attention processor's layer.
const SUFFIXES: [(&str, Part); 11] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
];

/// Kohya's prefixes, before names with underscores.
const KOHYA: [(&str, Component); 3] = [
    ("lora_unet_", Component::UNet),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
];

/// diffusers' prefixes, before paths. The UNet's own files have none.
const DIFFUSERS: [(&str, Component); 4] = [
    ("unet.", Component::UNet),
    ("text_encoder.", Component::TextEncoder),
    ("text_encoder_2.", Component::TextEncoder2),
    ("", Component::UNet),
];

/// A part of the LoRA of the layer at `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoraKey {
    pub component: Component,
    pub path: String,
    pub part: Part,
}

/// Reads a key. Without a model's layers to look them up in, paths are taken as they are.
///
/// # Errors
/// Says why it is no LoRA's, or of no layer.
pub(super) fn parse(key: &str, modules: Option<&Modules>) -> Result<LoraKey, String> {
    let Some((name, part)) = SUFFIXES.iter().find_map(|(s, part)| Some((key.strip_suffix(s)?, *part))) else {
        return Err(not_lora(key));
    };
    let kohya = KOHYA.iter().find_map(|(prefix, c)| Some((name.strip_prefix(prefix)?, *c)));
    if let Some((name, component)) = kohya {
        let Some(modules) = modules else {
            return Err("kohya's names can only be told apart with the model that they are for".into());
        };
        return match modules.by_kohya(component, name) {
            Some(path) => Ok(LoraKey { component, path: path.into(), part }),
            None => Err(no_layer(component)),
        };
    }
    let found = DIFFUSERS.iter().find_map(|(prefix, c)| Some((name.strip_prefix(prefix)?, *c)));
    let (path, component) = found.unwrap_or((name, Component::UNet));
    let path = today(component, path);
    let Some(modules) = modules else { return Ok(LoraKey { component, path, part }) };
    // transformers 5 names the first encoder's layers without the prefix.
    let candidates = [path.clone(), format!("text_model.{path}")];
    match candidates.into_iter().find(|path| modules.layer(component, path).is_some()) {
        Some(path) => Ok(LoraKey { component, path, part }),
        None => Err(no_layer(component)),
    }
}

/// The path as diffusers has it now: attention processors held the LoRA of their attention.
fn today(component: Component, path: &str) -> String {
    let path = path.replace(".processor.", ".");
    let (block, layer) = path.rsplit_once('.').unwrap_or(("", &path));
    match (component, layer) {
        (Component::UNet, "to_out") => format!("{block}.to_out.0"),
        (Component::TextEncoder | Component::TextEncoder2, "to_q" | "to_k" | "to_v") => {
            format!("{block}.{}_proj", &layer[3..])
        }
        (Component::TextEncoder | Component::TextEncoder2, "to_out") => format!("{block}.out_proj"),
        _ => path,
    }
}

fn no_layer(component: Component) -> String {
    format!("the model's {} has no such layer", component.name())
}

/// Names the kinds of adapters that people may take for LoRA.
fn not_lora(key: &str) -> String {
    const OTHERS: [(&str, &str); 7] = [
        (".dora_scale", "DoRA is not supported"),
        (".lora_magnitude_vector", "DoRA is not supported"),
        (".hada_", "LoHa is not supported, only LoRA"),
        (".lokr_", "LoKr is not supported, only LoRA"),
        (".lora_mid", "LoRA with a middle part (CP decomposition) is not supported"),
        ("emb_params", "an embedding for Stable Diffusion 1 or 2, not SDXL"),
        ("string_to_param", "an embedding for Stable Diffusion 1 or 2, not SDXL"),
    ];
    let known = OTHERS.iter().find(|(mark, _)| key.contains(mark));
    known.map_or("no key of a LoRA or of an embedding", |(_, why)| why).into()
}
