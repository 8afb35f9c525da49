//! Converts requests to the plans of the pipeline and the trainer, and back.

mod predict;

use std::path::PathBuf;

use calotype_request::{FileType, InputError, LrScheduler, RESOLUTION_MULTIPLE, TrainInput, schema};
use calotype_sdxl::ArgumentError;
use calotype_sdxl::plan::random_seed;
use calotype_train::preprocess::Masks;
use calotype_train::{Method, TrainOptions, TrainPlan, dataset, lr_schedule};
use serde_json::{Map, Value};

#[cfg(fuzzing)]
pub use predict::predict_at_native_size;
pub use predict::{predict, predict_at_size, request, weights_file};

/// The settings of a training that the published interface lacks, from their JSON object. Others have their defaults.
///
/// # Errors
/// A setting is unknown, or its value has another type.
pub fn train_options(given: Map<String, Value>) -> Result<TrainOptions, InputError> {
    schema::deserialize(given)
}

/// The plan of a training. If the request has no seed, a random one is drawn.
///
/// The number of steps is `max_train_steps`. If epochs were given instead ([`calotype_request::epochs`]), it follows from the
/// set: [`TrainPlan::for_epochs`].
///
/// # Errors
/// The token is not a word, the prefix lacks the token, or a setting is out of range.
pub fn train(input: TrainInput, options: TrainOptions) -> Result<TrainPlan, ArgumentError> {
    let (method, lr) = match (input.is_lora, options.textual_inversion_only) {
        (true, true) => (Method::TextualInversion, input.ti_lr),
        (true, false) => (Method::Lora { rank: input.lora_rank }, input.lora_lr),
        (false, _) => (Method::Full, input.unet_learning_rate),
    };
    let plan = TrainPlan {
        input_images: PathBuf::from(input.input_images),
        input_images_filetype: file_type(input.input_images_filetype),
        seed: input.seed.unwrap_or_else(random_seed),
        resolution: input.resolution,
        train_batch_size: input.train_batch_size,
        steps: input.max_train_steps,
        method,
        lr,
        ti_lr: input.ti_lr,
        lr_scheduler: lr_scheduler(input.lr_scheduler),
        lr_warmup_steps: input.lr_warmup_steps,
        token_string: input.token_string,
        caption_prefix: input.caption_prefix,
        crop_based_on_salience: input.crop_based_on_salience,
        checkpointing_steps: input.checkpointing_steps,
        pivot: None,
        options,
    };
    plan.checked()
}

/// Where the masks of a training's set come from. Warns about fields that have no effect.
///
/// # Errors
/// The temperature is out of range.
pub fn masks(input: &TrainInput) -> Result<Masks, ArgumentError> {
    let temperature = input.clipseg_temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(ArgumentError::new("clipseg_temperature", "a number above 0", temperature.to_string()));
    }
    let prompt = input.mask_target_prompts.as_deref().map(str::trim).filter(|prompt| !prompt.is_empty());
    Ok(match prompt {
        _ if input.use_face_detection_instead => Masks::Faces,
        Some(text) => Masks::Prompt { text: text.to_owned(), temperature },
        None => Masks::Own,
    })
}

/// The fields of masks that have no effect: without a prompt, or beside faces.
pub fn masks_without_effect(given: &Map<String, Value>, masks: &Masks) -> Vec<&'static str> {
    let ignored: &[&str] = match masks {
        Masks::Faces => &["mask_target_prompts", "clipseg_temperature"],
        Masks::Own => &["clipseg_temperature"],
        Masks::Prompt { .. } => &[],
    };
    ignored
        .iter()
        .copied()
        .filter(|name| given.get(*name).is_some_and(|value| value.as_str() != Some("")))
        .collect()
}

/// The archive type of the request's set.
pub fn file_type(file_type: FileType) -> dataset::FileType {
    match file_type {
        FileType::Zip => dataset::FileType::Zip,
        FileType::Tar => dataset::FileType::Tar,
        FileType::Infer => dataset::FileType::Infer,
    }
}

fn lr_scheduler(scheduler: LrScheduler) -> lr_schedule::LrScheduler {
    match scheduler {
        LrScheduler::Constant => lr_schedule::LrScheduler::Constant,
        LrScheduler::Linear => lr_schedule::LrScheduler::Linear,
    }
}

/// Reduces the resolution to the one that a small model was trained for, if `given` has no resolution: `side` pixels, if that
/// is less and a valid resolution.
pub fn train_at_native_size(
    mut plan: TrainPlan,
    given: &Map<String, Value>,
    side: Option<usize>,
) -> TrainPlan {
    if let Some(side) = side.filter(|side| side % RESOLUTION_MULTIPLE == 0 && *side > 0)
        && !given.contains_key("resolution")
    {
        plan.resolution = plan.resolution.min(side);
    }
    plan
}

/// Checks that a training's plan from a file follows from this checked request and from the plan's own options.
///
/// # Errors
/// A setting is out of range, or a field of the plan does not follow from the request. The error names it, as `plan.steps`.
pub fn check_train(plan: &TrainPlan, request: &TrainInput) -> Result<(), ArgumentError> {
    let expected = train(request.clone(), plan.options.clone())?;
    if let Some(pivot) = plan.pivot.filter(|pivot| *pivot > plan.steps) {
        let at_most = format!("at most {}, the steps", plan.steps);
        return Err(ArgumentError::new("plan.pivot", at_most, pivot.to_string()));
    }
    let fields = |plan: &TrainPlan| serde_json::to_value(plan).unwrap_or_default();
    let (expected, found) = (fields(&TrainPlan { pivot: plan.pivot, ..expected }), fields(plan));
    for (name, value) in expected.as_object().into_iter().flatten() {
        if found[name] != *value {
            let field = format!("plan.{name}");
            let expected = format!("{value}, as the request has it");
            return Err(ArgumentError::new(&field, expected, found[name].to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    /// Protects a training's plan: the learning rate of the method, seed 0, the prefix of another token and steps from epochs
    /// follow from the request. A plan in a file reads back unchanged.
    #[test]
    fn a_training_plan_follows_the_request() {
        let plan = |value: Value, options: Value| {
            let input = TrainInput::from_json(object(value)).expect("a valid request");
            train(input, train_options(object(options)).expect("options")).expect("a plan")
        };
        let lora = plan(json!({"input_images": "a.zip", "seed": 0, "token_string": "XYZ"}), json!({}));
        assert_eq!((lora.seed, lora.method, lora.lr), (0, Method::Lora { rank: 32 }, 1e-4));
        assert_eq!((lora.caption_prefix.as_str(), lora.steps), ("a photo of XYZ, ", 1000));
        let text = serde_json::to_string(&lora).expect("JSON");
        assert_eq!(serde_json::from_str::<TrainPlan>(&text).expect("a plan"), lora);
        let options =
            json!({"textual_inversion_only": true, "max_grad_norm": 0, "gradient_accumulation_steps": 2});
        let alone = plan(json!({"input_images": "a.zip", "ti_lr": 0.5}), options);
        assert_eq!((alone.method, alone.lr, alone.max_grad_norm()), (Method::TextualInversion, 0.5, None));
        // 3 × 5 pictures, 4 × 2 per step.
        assert_eq!(alone.clone().for_epochs(3, 5).steps, 2);
        assert_eq!(alone.for_epochs(usize::MAX, 5).steps, 10_000_000);
        assert_eq!(calotype_request::epochs(&object(json!({"num_train_epochs": 3}))), Some(3));
        assert_eq!(
            calotype_request::epochs(&object(json!({"num_train_epochs": 3, "max_train_steps": 9}))),
            None
        );
    }

    /// Protects the published defaults: they are those of a plan without a request.
    #[test]
    fn defaults_are_the_published_ones() {
        let input = TrainInput::from_json(object(json!({ "input_images": "", "seed": 1 })));
        let training = train(input.expect("a request"), TrainOptions::default()).expect("a plan");
        let default = TrainPlan { seed: 1, ..TrainPlan::default() }.checked().expect("a plan");
        assert_eq!(training, default);
    }

    /// Protects against panics: for any value of any field of a training, a plan is made, or the field is refused by name.
    #[test]
    fn any_training_gets_an_answer() {
        let values = json!([true, 0, 1e308, 0.1, "", "\u{0}", "猫".repeat(500)]);
        for field in TrainInput::schema().fields() {
            for value in values.as_array().expect("an array") {
                let given = object(json!({ "input_images": "a.zip", &field.name: value }));
                let Ok(input) = TrainInput::from_json(given) else { continue };
                let Err(refused) = train(input, TrainOptions::default()) else { continue };
                // If the prefix lacks the token, the error names the prefix.
                let known = [field.name.as_str(), "caption_prefix"].contains(&refused.name.as_str());
                let line = refused.to_string();
                assert!(known && !line.contains('\n') && line.len() < 400, "{line}");
            }
        }
    }
}
