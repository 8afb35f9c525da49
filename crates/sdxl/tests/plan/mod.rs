//! Plans of predictions from JSON, for tests.

use calotype_sdxl::samplers::Sampler;
use calotype_sdxl::{PredictPlan, Refine};
use serde_json::Value;

/// The default plan but for the fields of `given`, by their names in the published interface. Several files have commas between
/// their names.
pub fn plan(given: &Value) -> PredictPlan {
    let mut plan = PredictPlan::default();
    for (name, value) in given.as_object().expect("an object") {
        let text = || value.as_str().expect("text").to_owned();
        let whole = || value.as_u64().expect("a whole number");
        let number = || value.as_f64().expect("a number");
        match name.as_str() {
            "prompt" => plan.prompt = text(),
            "negative_prompt" => plan.negative_prompt = text(),
            "width" => plan.width = whole() as usize,
            "height" => plan.height = whole() as usize,
            "num_outputs" => plan.num_outputs = whole() as usize,
            "scheduler" => plan.scheduler = Sampler::find(&text()).expect("a sampler"),
            "num_inference_steps" => plan.steps = whole() as usize,
            "guidance_scale" => plan.guidance_scale = number(),
            "lora_scale" => plan.lora_scale = number(),
            "replicate_weights" => plan.replicate_weights = text().split(',').map(Into::into).collect(),
            "seed" => plan.seed = whole(),
            "prompt_strength" => plan.prompt_strength = number(),
            "high_noise_frac" => plan.high_noise_frac = number(),
            "refine_steps" => plan.refine_steps = Some(whole() as usize),
            "refine" => {
                plan.refine = match text().as_str() {
                    "no_refiner" => Refine::NoRefiner,
                    "expert_ensemble_refiner" => Refine::ExpertEnsembleRefiner,
                    "base_image_refiner" => Refine::BaseImageRefiner,
                    other => panic!("refine: {other}"),
                }
            }
            "apply_watermark" => plan.apply_watermark = value.as_bool().expect("true or false"),
            "disable_safety_checker" => {}
            _ => panic!("{name}: no such field"),
        }
    }
    plan
}
