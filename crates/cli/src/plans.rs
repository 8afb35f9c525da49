//! Converts requests to the plans of the pipeline and the trainer, and back.

use std::path::{Path, PathBuf};

use calotype_request::{FileType, LrScheduler, PredictInput, RESOLUTION_MULTIPLE, SIZE_MULTIPLE, SIZES};
use calotype_request::{InputError, TrainInput, schema};
use calotype_sdxl::plan::{check_mask, random_seed};
use calotype_sdxl::prompt::PromptSyntax;
use calotype_sdxl::samplers::Sampler;
use calotype_sdxl::{ArgumentError, InputImage, InputMask, Pipeline, PredictPlan, Refine};
use calotype_train::preprocess::Masks;
use calotype_train::{Method, TrainOptions, TrainPlan, dataset, lr_schedule};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The plan of a prediction, with its picture and mask decoded. If the request has no seed, a random one is drawn.
///
/// # Errors
/// No sampler has the name in the request, there is a mask without a picture, or one of these cannot be read.
pub fn predict(input: PredictInput) -> Result<PredictPlan, Failure> {
    check_mask(input.mask.is_some(), input.image.is_some())?;
    let image = input.image.as_deref().map(InputImage::read).transpose();
    let mask = input.mask.as_deref().map(InputMask::read).transpose();
    let files = input.replicate_weights.as_deref().map(schema::split).unwrap_or_default();
    let (replicate_weights, file_scales) = files.iter().map(|file| weights_file(file)).unzip();
    Ok(PredictPlan {
        image: image.map_err(calotype_sdxl::Error::from)?,
        mask: mask.map_err(calotype_sdxl::Error::from)?,
        prompt_strength: input.prompt_strength,
        refine: match input.refine {
            calotype_request::Refine::NoRefiner => Refine::NoRefiner,
            calotype_request::Refine::ExpertEnsembleRefiner => Refine::ExpertEnsembleRefiner,
            calotype_request::Refine::BaseImageRefiner => Refine::BaseImageRefiner,
        },
        high_noise_frac: input.high_noise_frac,
        refine_steps: input.refine_steps,
        prompt: input.prompt,
        negative_prompt: input.negative_prompt,
        width: input.width,
        height: input.height,
        num_outputs: input.num_outputs,
        scheduler: Sampler::find(input.scheduler.name()).map_err(calotype_sdxl::Error::from)?,
        timestep_spacing: None,
        steps: input.num_inference_steps,
        guidance_scale: input.guidance_scale.max(1.0),
        lora_scale: input.lora_scale,
        replicate_weights,
        file_scales,
        apply_watermark: input.apply_watermark,
        prompt_syntax: PromptSyntax::default(),
        seed: input.seed.unwrap_or_else(random_seed),
    })
}

/// A file of `replicate_weights`, and its own scale if one follows the name: `b.safetensors:0.8`. A name that is a file's as it
/// stands has no scale.
pub fn weights_file(name: &Path) -> (PathBuf, Option<f64>) {
    let text = name.to_string_lossy();
    let parts = text.rsplit_once(':').filter(|(file, _)| !file.is_empty() && !name.exists());
    let scaled = parts.and_then(|(file, scale)| Some((file, scale.trim().parse::<f64>().ok()?)));
    match scaled.filter(|(_, scale)| scale.is_finite()) {
        Some((file, scale)) => (file.into(), Some(scale)),
        None => (name.into(), None),
    }
}

/// The names of a plan's files, as [`weights_file`] reads them.
fn weights_names(plan: &PredictPlan) -> Vec<String> {
    let name = |(i, file): (usize, &PathBuf)| {
        let name = file.to_string_lossy();
        // A name that ends like a scale gets one, so that the name is not taken apart where there is no such file.
        let ends_so = || name.rsplit_once(':').is_some_and(|(_, end)| end.trim().parse::<f64>().is_ok());
        match plan.file_scales.get(i).copied().flatten() {
            Some(scale) => format!("{name}:{scale}"),
            None if ends_so() => format!("{name}:{}", plan.lora_scale),
            None => name.into_owned(),
        }
    };
    plan.replicate_weights.iter().enumerate().map(name).collect()
}

/// Sets the sides that `given` lacks: after the plan's picture, or to the model's own size.
///
/// # Errors
/// The picture is too small for the model.
pub fn predict_at_size(
    mut plan: PredictPlan,
    given: &Map<String, Value>,
    pipeline: &Pipeline,
) -> Result<PredictPlan, Failure> {
    let Some(image) = &plan.image else {
        return Ok(predict_at_native_size(plan, given, pipeline.native_size()));
    };
    let side = |name: &str, side: usize| given.contains_key(name).then_some(side);
    let given = (side("width", plan.width), side("height", plan.height));
    (plan.width, plan.height) = pipeline.size_for(image.dimensions(), given)?;
    Ok(plan)
}

/// Sets the size that the model was trained for, `side` pixels, if `given` has no width or no height.
pub fn predict_at_native_size(
    mut plan: PredictPlan,
    given: &Map<String, Value>,
    side: Option<usize>,
) -> PredictPlan {
    if let Some(side) = side.filter(|side| side % SIZE_MULTIPLE == 0 && SIZES.contains(side)) {
        for (name, length) in [("width", &mut plan.width), ("height", &mut plan.height)] {
            if !given.contains_key(name) {
                *length = side;
            }
        }
    }
    plan
}

/// The request for a plan's pictures, by the names of the interface. Settings without an effect are left out.
pub fn request(plan: &PredictPlan) -> Value {
    let mut request = json!({
        "prompt": plan.prompt,
        "negative_prompt": plan.negative_prompt,
        "width": plan.width,
        "height": plan.height,
        "num_outputs": plan.num_outputs,
        "scheduler": plan.scheduler.name(),
        "num_inference_steps": plan.steps,
        "guidance_scale": plan.guidance_scale,
        "apply_watermark": plan.apply_watermark,
        "lora_scale": plan.lora_scale,
    });
    if !plan.replicate_weights.is_empty() {
        request["replicate_weights"] = schema::join(&weights_names(plan)).into();
    }
    for (name, file) in [
        ("image", plan.image.as_ref().map(|image| &image.name)),
        ("mask", plan.mask.as_ref().map(|mask| &mask.name)),
    ] {
        if let Some(file) = file {
            request[name] = file.as_str().into();
        }
    }
    if plan.image.is_some() {
        request["prompt_strength"] = plan.prompt_strength.into();
    }
    match plan.refine {
        Refine::NoRefiner => {}
        Refine::ExpertEnsembleRefiner => {
            request["refine"] = "expert_ensemble_refiner".into();
            request["high_noise_frac"] = plan.high_noise_frac.into();
        }
        Refine::BaseImageRefiner => {
            request["refine"] = "base_image_refiner".into();
            request["refine_steps"] = plan.refine_steps.unwrap_or(plan.steps).into();
        }
    }
    request["seed"] = plan.seed.into();
    request
}

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
        .filter(|name| given.get(*name).is_some_and(|value| *value != Value::from("")))
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
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    fn plan(value: Value) -> PredictPlan {
        predict(PredictInput::from_json(object(value)).expect("a valid request")).expect("a plan")
    }

    /// Protects the defaults: an empty request is the published default picture.
    #[test]
    fn defaults_make_a_plan() {
        let plan = plan(json!({}));
        assert_eq!((plan.width, plan.height, plan.num_outputs, plan.steps), (1024, 1024, 1, 50));
        assert_eq!((plan.scheduler.name(), plan.guidance_scale), ("K_EULER", 7.5));
        assert!(plan.seed <= u64::from(u32::MAX));
    }

    /// Protects seeds: 0 is a seed, large seeds are kept exactly, a batch counts up from the first, and negative seeds are
    /// refused.
    #[test]
    fn seeds() {
        assert_eq!(plan(json!({"seed": 0})).seed, 0);
        assert_eq!(plan(json!({"seed": u64::MAX})).seed, u64::MAX);
        assert_eq!(plan(json!({"seed": 5})).image_seed(2), 7);
        assert_eq!(plan(json!({"seed": u64::MAX})).image_seed(1), 0);
        let distinct: std::collections::HashSet<u64> =
            (0..8).map(|_| plan(json!({"seed": null})).seed).collect();
        assert!(distinct.len() > 1, "random seeds differ");
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

    /// Protects the JSON of a plan: it is a request for the same pictures.
    #[test]
    fn a_plan_is_a_request_again() {
        let first =
            plan(json!({"prompt": "a cat", "seed": 7, "scheduler": "K_EULER_ANCESTRAL", "width": 64}));
        let again = request(&first);
        assert_eq!(again["scheduler"], first.scheduler.name());
        assert_eq!(plan(again), first);
    }

    /// Protects names of files with commas: they read back unchanged.
    #[test]
    fn names_of_files_come_back() {
        let first = plan(json!({ "replicate_weights": r"a\,b.tar,c", "seed": 1 }));
        assert_eq!(first.replicate_weights, [PathBuf::from("a,b.tar"), PathBuf::from("c")]);
        assert_eq!(plan(request(&first)), first);
    }

    /// Protects scales of single files: the last colon separates them from a name, unless the whole is the name of a file, or no
    /// number follows, as after a Windows drive's letter.
    #[test]
    fn files_have_scales() {
        let there = std::env::temp_dir().join(format!("calotype-plans-{}:0.5", std::process::id()));
        std::fs::write(&there, "").expect("written");
        let named = there.to_str().expect("text");
        for (text, file, scale) in [
            ("b.safetensors:0.8", "b.safetensors", Some(0.8)),
            ("b.safetensors:-1", "b.safetensors", Some(-1.0)),
            ("a:2:0.25", "a:2", Some(0.25)),
            ("b.safetensors", "b.safetensors", None),
            (r"C:\b.safetensors", r"C:\b.safetensors", None),
            ("b:nan", "b:nan", None),
            (":1", ":1", None),
            (named, named, None),
        ] {
            assert_eq!(weights_file(Path::new(text)), (PathBuf::from(file), scale), "{text}");
        }
        std::fs::remove_file(&there).expect("removed");
        let first = plan(json!({"replicate_weights": "a.tar,b:0.8,c:2:1", "seed": 1, "lora_scale": 0.5}));
        assert_eq!([0, 1, 2].map(|i| first.file_scale(i)), [0.5, 0.8, 1.0]);
        assert_eq!(plan(request(&first)), first);
        let named = PredictPlan { replicate_weights: vec!["c:2".into()], file_scales: vec![None], ..first };
        assert_eq!(request(&named)["replicate_weights"], "c:2:0.5");
    }

    /// Protects the published defaults: they are those of a plan without a request.
    #[test]
    fn defaults_are_the_published_ones() {
        let default = PredictPlan { seed: 1, ..PredictPlan::default() };
        assert_eq!(plan(json!({ "seed": 1 })), default);
        let input = TrainInput::from_json(object(json!({ "input_images": "", "seed": 1 })));
        let training = train(input.expect("a request"), TrainOptions::default()).expect("a plan");
        let default = TrainPlan { seed: 1, ..TrainPlan::default() }.checked().expect("a plan");
        assert_eq!(training, default);
    }

    /// Protects the schedulers of requests: they are the samplers.
    #[test]
    fn schedulers_have_samplers() {
        let schedulers = calotype_request::Scheduler::ALL.map(calotype_request::Scheduler::name);
        let samplers: Vec<&str> = Sampler::ALL.iter().map(Sampler::name).collect();
        assert_eq!(schedulers.as_slice(), samplers);
    }

    /// Protects a guidance below 1, which the command line accepts: it means no guidance, and the picture's texts say so.
    #[test]
    fn guidance_below_1_is_none() {
        let plan = |scale: f64| {
            let given = object(json!({"prompt": "a photo", "guidance_scale": scale, "seed": 1}));
            predict(PredictInput::from_command_line(given).expect("valid")).expect("a plan")
        };
        assert_eq!(plan(0.0), plan(1.0));
        assert_eq!(plan(0.5), plan(1.0));
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
