//! Requests for pictures → what the pipeline takes, and back.

use std::path::{Path, PathBuf};

use calotype_request::{PredictInput, SIZE_MULTIPLE, SIZES, schema};
use calotype_sdxl::plan::{check_mask, random_seed};
use calotype_sdxl::prompt::PromptSyntax;
use calotype_sdxl::samplers::Sampler;
use calotype_sdxl::{InputImage, InputMask, Pipeline, PredictPlan, Refine};
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
}
