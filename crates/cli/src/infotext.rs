//! The texts in a picture that tell how it was made, in the forms that other programs read.

use std::path::{Path, PathBuf};

use calotype_sdxl::adapters;
use calotype_sdxl::prompt::LongPrompts;
use calotype_sdxl::samplers::Sampler;
use calotype_sdxl::{InputImage, InputMask, PredictPlan, Refine};
use serde_json::{Value, json};

use crate::plans;

/// The settings that made a picture, apart from the request.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The name of the model folder.
    pub model: String,
    /// `bf16` or `f32`.
    pub dtype: calotype_tensor::DType,
    /// `cpu` or `cuda`.
    pub rng: &'static str,
    /// `encode` or `zeros`.
    pub empty_negative: &'static str,
    /// The name of the refiner, if it made steps.
    pub refiner: Option<String>,
}

/// The text of AUTOMATIC1111's web UI, which other UIs read too: prompt, negative prompt, and one line of settings.
pub fn automatic1111(plan: &PredictPlan, seed: u64, maker: &Maker) -> String {
    let mut text = plan.prompt.clone();
    for (i, file) in plan.replicate_weights.iter().enumerate() {
        // The web UI selects a LoRA by the file's name in the prompt, which may contain it already.
        if !adapters::has_tag(&plan.prompt, file) && !adapters::has_tag(&plan.negative_prompt, file) {
            text += &format!(" <lora:{}:{}>", adapters::name(file), plan.file_scale(i));
        }
    }
    if !plan.negative_prompt.is_empty() {
        text += &format!("\nNegative prompt: {}", plan.negative_prompt);
    }
    // The web UI's names of torch's generators: CPU, and NV for CUDA's.
    let rng = if maker.rng == "cuda" { "NV" } else { "CPU" };
    let settings = [
        ("Steps", plan.steps.to_string()),
        ("Sampler", sampler(plan.scheduler).to_string()),
        ("CFG scale", plan.guidance_scale.to_string()),
        ("Seed", seed.to_string()),
        ("Size", format!("{}x{}", plan.width, plan.height)),
        ("Model", quoted(&maker.model)),
        ("RNG", rng.to_string()),
    ];
    let mut settings = settings.to_vec();
    if plan.image.is_some() {
        settings.push(("Denoising strength", plan.prompt_strength.to_string()));
    }
    if let Some(refiner) = &maker.refiner {
        settings.push(("Refiner", quoted(refiner)));
        if plan.refine == Refine::ExpertEnsembleRefiner {
            settings.push(("Refiner switch at", plan.high_noise_frac.to_string()));
        }
    }
    settings.push(("Version", format!("calotype {}", env!("CARGO_PKG_VERSION"))));
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    text + "\n" + &settings.join(", ")
}

/// The web UI's name of a sampler, or our own if it has none.
fn sampler(sampler: &'static Sampler) -> &'static str {
    match sampler.name() {
        "DPMSolverMultistep" => "DPM++ 2M",
        "HeunDiscrete" => "Heun",
        "KarrasDPM" => "DPM++ 2M Karras",
        "K_EULER_ANCESTRAL" => "Euler a",
        "K_EULER" => "Euler",
        "PNDM" => "PLMS",
        "DPMSolverMultistepSDE" => "DPM++ 2M SDE",
        own => own,
    }
}

/// Quotes values that contain separators of the settings line, as JSON.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) { Value::from(value).to_string() } else { value.into() }
}

/// Everything as JSON. `input` is a request for this picture alone. Files are given by name only, because
/// their folders do not concern others who get the picture.
pub fn json(plan: &PredictPlan, seed: u64, maker: &Maker) -> String {
    let names = plan.replicate_weights.iter().map(|file| file_name(file)).collect();
    let own = |name: &str| file_name(Path::new(name)).to_string_lossy().into_owned();
    let image = plan.image.clone().map(|image| InputImage { name: own(&image.name), ..image });
    let mask = plan.mask.clone().map(|mask| InputMask { name: own(&mask.name), ..mask });
    let input = PredictPlan { seed, num_outputs: 1, replicate_weights: names, image, mask, ..plan.clone() };
    let version = env!("CARGO_PKG_VERSION");
    let dtype = maker.dtype.to_string();
    let long_prompts = match plan.prompt_syntax.long {
        LongPrompts::Chunk => "chunk",
        LongPrompts::Truncate => "truncate",
    };
    let mut json = json!({
        "version": version, "model": maker.model, "dtype": dtype, "rng": maker.rng,
        "empty_negative": maker.empty_negative, "long_prompts": long_prompts, "prompt_weights": plan.prompt_syntax.weights,
        "input": plans::request(&input)
    });
    if let Some(spacing) = plan.timestep_spacing {
        json["timestep_spacing"] = spacing.name().into();
    }
    if let Some(refiner) = &maker.refiner {
        json["refiner"] = refiner.as_str().into();
    }
    json.to_string()
}

/// The last part of a path.
fn file_name(path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) => name.into(),
        // A folder may be given as `.` or `..`.
        None => path.canonicalize().ok().and_then(|path| Some(path.file_name()?.into())).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use calotype_request::PredictInput;

    use super::*;

    fn plan(given: Value) -> PredictPlan {
        let given = given.as_object().cloned().expect("an object");
        plans::predict(PredictInput::from_json(given).expect("valid")).expect("a plan")
    }

    fn maker() -> Maker {
        Maker {
            model: "sdxl, mine".into(),
            dtype: calotype_tensor::DType::BF16,
            rng: "cpu",
            empty_negative: "encode",
            refiner: None,
        }
    }

    /// Protects: the layout that web UIs parse.
    #[test]
    fn settings_read_as_the_web_ui_writes_them() {
        let request = json!({"prompt": "a cat", "negative_prompt": "a dog", "num_inference_steps": 25,
            "scheduler": "K_EULER_ANCESTRAL", "seed": 3, "width": 512, "height": 768});
        assert_eq!(
            automatic1111(&plan(request), 4, &maker()),
            format!(
                "a cat\nNegative prompt: a dog\nSteps: 25, Sampler: Euler a, CFG scale: 7.5, Seed: 4, Size: 512x768, \
                 Model: \"sdxl, mine\", RNG: CPU, Version: calotype {}",
                env!("CARGO_PKG_VERSION")
            )
        );
        let trained =
            json!({"prompt": "a TOK", "replicate_weights": "a/my.tar,b.safetensors", "lora_scale": 0.5});
        let trained = automatic1111(&plan(trained), 1, &maker());
        assert!(trained.starts_with("a TOK <lora:my:0.5> <lora:b:0.5>\nSteps: 50, "), "{trained}");
        let scaled =
            json!({"prompt": "a TOK", "replicate_weights": "my.tar,b.safetensors:0.8", "lora_scale": 0.5});
        let scaled = plan(scaled);
        assert!(automatic1111(&scaled, 1, &maker()).starts_with("a TOK <lora:my:0.5> <lora:b:0.8>\n"));
        assert!(json(&scaled, 1, &maker()).contains(r#""replicate_weights":"my.tar,b.safetensors:0.8""#));
        let tagged =
            json!({"prompt": "a TOK <lora:my:1>", "replicate_weights": "a/my.tar,b.tar", "lora_scale": 0.5});
        let tagged = automatic1111(&plan(tagged), 1, &maker());
        assert!(tagged.starts_with("a TOK <lora:my:1> <lora:b:0.5>\nSteps: 50, "), "{tagged}");
        let bare = automatic1111(&plan(json!({"prompt": "a cat", "seed": 1})), 1, &maker());
        assert!(bare.starts_with("a cat\nSteps: 50, Sampler: Euler, "), "{bare}");
    }

    /// Protects the request in a picture of a batch: it makes this picture alone.
    #[test]
    fn the_json_makes_one_picture_again() {
        let batch = plan(json!({"prompt": "a cat", "seed": 3, "num_outputs": 4}));
        let text: Value = serde_json::from_str(&json(&batch, batch.image_seed(2), &maker())).expect("JSON");
        let again = plan(text["input"].clone());
        assert_eq!(again, PredictPlan { seed: 5, num_outputs: 1, ..batch });
        assert_eq!((&text["dtype"], &text["rng"]), (&json!("bf16"), &json!("cpu")));
    }

    /// Protects the user's privacy: a picture names the files that it was made with, but not their folders, which may contain
    /// the user's name.
    #[test]
    fn no_paths_are_told() {
        let request = json!({"prompt": "a cat", "replicate_weights": "/home/alice/secret project/me.tar,../b.safetensors"});
        let plan = plan(request);
        let (text, json) = (automatic1111(&plan, 1, &maker()), json(&plan, 1, &maker()));
        for told in [&text, &json] {
            assert!(!told.contains("secret") && !told.contains("alice") && !told.contains(".."), "{told}");
        }
        assert!(json.contains(r#""replicate_weights":"me.tar,b.safetensors""#), "{json}");
    }
}
