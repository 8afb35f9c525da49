//! How a picture says what it was made from, for the readers that people have.

use calotype_sdxl::request::{PredictPlan, Scheduler};
use serde_json::{Value, json};

/// What made a picture, apart from the request.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The model folder's name.
    pub model: String,
    /// `bf16` or `f32`.
    pub dtype: calotype_tensor::DType,
    /// `cpu` or `cuda`.
    pub rng: &'static str,
    /// `encode` or `zeros`.
    pub empty_negative: &'static str,
}

/// The text that AUTOMATIC1111's web UI writes and that the other UIs read: prompt, negative prompt, and one line of
/// settings.
pub fn automatic1111(plan: &PredictPlan, seed: u64, maker: &Maker) -> String {
    let mut text = plan.prompt.clone();
    for file in &plan.replicate_weights {
        // Its way to ask for a LoRA: by the file's name, in the prompt.
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        text += &format!(" <lora:{name}:{}>", plan.lora_scale);
    }
    if !plan.negative_prompt.is_empty() {
        text += &format!("\nNegative prompt: {}", plan.negative_prompt);
    }
    // Its names for torch's generators: CPU, and NV for CUDA's.
    let rng = if maker.rng == "cuda" { "NV" } else { "CPU" };
    let settings = [
        ("Steps", plan.steps.to_string()),
        ("Sampler", sampler(plan.scheduler).to_string()),
        ("CFG scale", plan.guidance_scale.to_string()),
        ("Seed", seed.to_string()),
        ("Size", format!("{}x{}", plan.width, plan.height)),
        ("Model", quoted(&maker.model)),
        ("RNG", rng.to_string()),
        ("Version", format!("calotype {}", env!("CARGO_PKG_VERSION"))),
    ];
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    text + "\n" + &settings.join(", ")
}

/// The web UI's name for a sampler; our own where it has none.
fn sampler(scheduler: Scheduler) -> &'static str {
    match scheduler.name() {
        "DPMSolverMultistep" => "DPM++ 2M",
        "HeunDiscrete" => "Heun",
        "KarrasDPM" => "DPM++ 2M Karras",
        "K_EULER_ANCESTRAL" => "Euler a",
        "K_EULER" => "Euler",
        "PNDM" => "PLMS",
        own => own,
    }
}

/// Values with the settings line's own separators are quoted, as JSON.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) { Value::from(value).to_string() } else { value.into() }
}

/// Everything as JSON. `input` is a request for this very picture, alone.
pub fn json(plan: &PredictPlan, seed: u64, maker: &Maker) -> String {
    let input = PredictPlan { seed, num_outputs: 1, ..plan.clone() };
    let version = env!("CARGO_PKG_VERSION");
    let dtype = maker.dtype.to_string();
    json!({
        "version": version, "model": maker.model, "dtype": dtype, "rng": maker.rng,
        "empty_negative": maker.empty_negative, "input": input
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use calotype_sdxl::request::PredictInput;

    use super::*;

    fn plan(given: Value) -> PredictPlan {
        let given = given.as_object().cloned().expect("an object");
        PredictPlan::new(PredictInput::from_json(given).expect("valid"))
    }

    fn maker() -> Maker {
        Maker {
            model: "sdxl, mine".into(),
            dtype: calotype_tensor::DType::BF16,
            rng: "cpu",
            empty_negative: "encode",
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
        let bare = automatic1111(&plan(json!({"prompt": "a cat", "seed": 1})), 1, &maker());
        assert!(bare.starts_with("a cat\nSteps: 50, Sampler: Euler, "), "{bare}");
    }

    /// Protects: one picture of a batch says how to make it alone.
    #[test]
    fn the_json_makes_one_picture_again() {
        let batch = plan(json!({"prompt": "a cat", "seed": 3, "num_outputs": 4}));
        let text: Value = serde_json::from_str(&json(&batch, batch.image_seed(2), &maker())).expect("JSON");
        let again = plan(text["input"].clone());
        assert_eq!(again, PredictPlan { seed: 5, num_outputs: 1, ..batch });
        assert_eq!((&text["dtype"], &text["rng"]), (&json!("bf16"), &json!("cpu")));
    }
}
