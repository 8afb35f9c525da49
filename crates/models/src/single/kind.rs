//! Which model a file of weights is: SDXL's base or refiner, or another model, which is refused by name.

use std::collections::HashMap;

use serde_json::Value;

use super::derive::{Shapes, any_below};

/// The prefix of the UNet's tensors.
pub const UNET: &str = "model.diffusion_model.";
/// The prefix of the VAE's tensors.
pub const VAE: &str = "first_stage_model.";

/// The kinds of SDXL that have text encoders of their own. The inpainting model is a base model with 9 channels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CLIP-L and OpenCLIP bigG.
    Base,
    /// OpenCLIP bigG alone.
    Refiner,
}

/// The prefix of the first text encoder, in the original layout and Hugging Face's names.
pub const TEXT: &str = "conditioner.embedders.0.transformer.";

impl Kind {
    /// The prefix of the second text encoder, in OpenCLIP's layout.
    pub fn text_2(self) -> &'static str {
        match self {
            Self::Base => "conditioner.embedders.1.model.",
            Self::Refiner => "conditioner.embedders.0.model.",
        }
    }
}

/// What a model's files are to show: the beginning of a key, and the name of the model or thing that has such keys.
const OTHERS: &[(&str, &str)] = &[
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
    ("joint_blocks.", "Stable Diffusion 3"),
    ("model.diffusion_model.double_blocks.", "FLUX"),
    ("model.diffusion_model.single_blocks.", "FLUX"),
    ("double_blocks.", "FLUX"),
    ("single_blocks.", "FLUX"),
    ("single_transformer_blocks.", "FLUX"),
    ("transformer_blocks.", "a diffusion transformer (Stable Diffusion 3, FLUX or another)"),
    ("model.diffusion_model.transformer_blocks.", "a diffusion transformer"),
    ("cond_stage_model.transformer.", "Stable Diffusion 1.x"),
    ("cond_stage_model.model.", "Stable Diffusion 2.x"),
    ("edm_vpred.sigma_max", "CosXL, which has EDM's noise levels"),
    ("edm_vpred.sigma_min", "CosXL, which has EDM's noise levels"),
    ("edm_mean", "Playground 2.5, which has EDM's noise levels"),
    ("edm_std", "Playground 2.5, which has EDM's noise levels"),
    ("lora_unet_", LORA),
    ("lora_te", LORA),
    ("base_model.model.", LORA),
    ("unet.", LORA),
    ("clip_g", EMBEDDING),
    ("clip_l", EMBEDDING),
    ("emb_params", EMBEDDING),
    ("down_blocks.", "a UNet alone, in diffusers' names: it belongs in the folder unet/ of a model"),
    ("encoder.", "a VAE alone: --vae takes it"),
    ("decoder.", "a VAE alone: --vae takes it"),
    ("text_model.", "a text encoder alone"),
];
const LORA: &str = "trained weights such as LoRA, for -i replicate_weights=@FILE";
const EMBEDDING: &str = "a textual inversion, for -i replicate_weights=@FILE";

/// Which SDXL the file is. The error says which other model the file is, or which parts are missing; `vae` is false if the VAE
/// comes from elsewhere.
pub fn of(shapes: &Shapes, vae: bool) -> Result<Kind, String> {
    let has = |prefix: &str| any_below(shapes, prefix);
    let is_sdxl = [Kind::Base, Kind::Refiner].iter().any(|kind| has(kind.text_2()));
    let markers = OTHERS.iter().filter(|(prefix, _)| !is_sdxl || prefix.starts_with("edm"));
    if let Some((_, name)) = markers.clone().find(|(prefix, _)| has(prefix)) {
        return Err(format!("expected an SDXL model in a single file, found {name}"));
    }
    if let (false, Some(name)) = (has(&format!("{UNET}label_emb.")), by_text_width(shapes)) {
        return Err(format!("expected an SDXL model in a single file, found {name}"));
    }
    let kind = match (has(Kind::Base.text_2()), has(TEXT), has(Kind::Refiner.text_2())) {
        (false, false, true) => Kind::Refiner,
        _ => Kind::Base,
    };
    let parts = [
        ("the UNet", UNET, true),
        ("the first text encoder", TEXT, kind == Kind::Base),
        ("the second text encoder", kind.text_2(), true),
        ("the VAE (--vae gives one)", VAE, vae),
    ];
    if ![UNET, VAE, "conditioner."].iter().any(|prefix| has(prefix)) {
        return Err(format!(
            "expected an SDXL model in a single file, found none of its parts ({UNET}, conditioner., {VAE})"
        ));
    }
    let missing: Vec<_> = parts.iter().filter(|(_, prefix, wanted)| *wanted && !has(prefix)).collect();
    if missing.is_empty() {
        return Ok(kind);
    }
    let missing = missing.iter().map(|(name, prefix, _)| format!("{name} ({prefix})"));
    let missing: Vec<_> = missing.collect();
    Err(format!("expected a whole SDXL model in a single file, found one without {}", missing.join(", ")))
}

/// The models whose cross-attention has another width than SDXL's.
fn by_text_width(shapes: &Shapes) -> Option<&'static str> {
    let attention =
        shapes.iter().find(|(key, _)| key.starts_with(UNET) && key.ends_with(".attn2.to_k.weight"));
    match attention?.1.get(1)? {
        768 => Some("Stable Diffusion 1.x (cross-attention 768 wide)"),
        1024 => Some("Stable Diffusion 2.x (cross-attention 1024 wide)"),
        _ => None,
    }
}

/// How a model's outputs are to be read, by the markers in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// `v_pred`: the network predicts v.
    pub v_prediction: bool,
    /// `ztsnr`: the noise levels are rescaled to a signal of zero at the last one.
    pub zero_snr: bool,
}

impl Markers {
    pub fn of(shapes: &Shapes) -> Self {
        Self { v_prediction: shapes.contains_key("v_pred"), zero_snr: shapes.contains_key("ztsnr") }
    }

    /// Whether there are markers.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Sets the fields of a scheduler's configuration that the markers decide.
    pub fn apply(self, scheduler: &mut Value) {
        for (marked, field, value) in [
            (self.v_prediction, "prediction_type", Value::from("v_prediction")),
            (self.zero_snr, "rescale_betas_zero_snr", Value::from(true)),
        ] {
            if marked {
                scheduler[field] = value;
            }
        }
    }
}

/// Describes where a file's metadata (`modelspec`) say something else than its tensors.
pub fn contradiction(metadata: &HashMap<String, String>, markers: Markers) -> Option<String> {
    let prediction = metadata.get("modelspec.prediction_type")?.as_str();
    let v = matches!(prediction, "v" | "v_prediction");
    (v != markers.v_prediction).then(|| {
        let (marker, read) = match markers.v_prediction {
            true => ("a tensor v_pred", "v_prediction"),
            false => ("no tensor v_pred", "epsilon"),
        };
        format!(
            "modelspec.prediction_type is {prediction:?}, but there is {marker}: read as {read} (--config names a folder whose scheduler decides)"
        )
    })
}

/// Whether a tensor outside of the networks, or one that only a training uses, is ignored.
pub fn is_ignored(key: &str) -> bool {
    const STARTS: &[&str] =
        &["model_ema.", "denoiser.", "first_stage_model.loss.", "first_stage_model.model_ema.", "posterior_"];
    const TABLES: &[&str] = &[
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "global_step",
        "log_one_minus_alphas_cumprod",
        "logvar",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "v_pred",
        "ztsnr",
    ];
    STARTS.iter().any(|start| key.starts_with(start))
        || TABLES.contains(&key)
        || key.starts_with("conditioner.") && (key.ends_with("logit_scale") || key.ends_with("position_ids"))
}
