//! Models and trained weights that are made for few steps: what they need, by their published names. Their files do not say it.

use std::path::Path;

use crate::error::ArgumentError;
use crate::plan::PredictPlan;
use crate::samplers::{Schedule, Spacing};

/// With fewer steps, trained weights are probably those that make few steps possible.
const MANY: usize = 9;

/// What a model or a file of trained weights needs.
struct Needs {
    /// The beginning of the published name, in lower case with hyphens.
    name: &'static str,
    /// The least and the most steps.
    steps: (usize, usize),
    /// The least and the most guidance.
    guidance: (f64, f64),
    /// `None`: several samplers serve.
    sampler: Option<&'static str>,
    /// Whether the timesteps must be trailing.
    trailing: bool,
    /// The reason why it cannot be used, or cannot be used with another sampler.
    refused: Option<&'static str>,
}

const ONE: (f64, f64) = (1.0, 1.0);

const ANY: Needs =
    Needs { name: "", steps: (1, 8), guidance: ONE, sampler: None, trailing: false, refused: None };

const LIGHTNING: Needs = Needs { trailing: true, ..ANY };

/// An earlier row goes before a later one.
const KNOWN: &[Needs] = &[
    Needs {
        name: "sdxl-lightning-1step",
        refused: Some("SDXL Lightning for 2, 4 or 8 steps (that for 1 step predicts the clean latents)"),
        ..LIGHTNING
    },
    Needs { name: "sdxl-lightning-2step", steps: (2, 2), ..LIGHTNING },
    Needs { name: "sdxl-lightning-4step", steps: (4, 4), ..LIGHTNING },
    Needs { name: "sdxl-lightning-8step", steps: (8, 8), ..LIGHTNING },
    Needs {
        name: "hyper-sdxl-1step-unet",
        refused: Some("Hyper-SDXL for 2 or more steps, or its LoRA (that for 1 step starts at timestep 800)"),
        ..ANY
    },
    Needs {
        name: "hyper-sdxl-1step",
        sampler: Some("TCD"),
        refused: Some("TCD, which the unified LoRA of Hyper-SDXL needs"),
        ..ANY
    },
    Needs { name: "hyper-sdxl-8steps-cfg", steps: (8, 8), guidance: (5.0, 8.0), ..LIGHTNING },
    Needs { name: "hyper-sdxl-12steps-cfg", steps: (12, 12), guidance: (5.0, 8.0), ..LIGHTNING },
    Needs { name: "hyper-sdxl-2steps", steps: (2, 2), ..LIGHTNING },
    Needs { name: "hyper-sdxl-4steps", steps: (4, 4), ..LIGHTNING },
    Needs { name: "hyper-sdxl-8steps", steps: (8, 8), ..LIGHTNING },
    Needs { name: "sdxl-turbo", steps: (1, 4), ..LIGHTNING },
    Needs { name: "sd-xl-turbo", steps: (1, 4), ..LIGHTNING },
    Needs { name: "lcm-lora-sdxl", steps: (2, 8), guidance: (1.0, 2.0), sampler: Some("LCM"), ..ANY },
    Needs { name: "tcd-sdxl", steps: (2, 50), sampler: Some("TCD"), ..ANY },
];

/// Warns about settings that do not suit the model or the trained weights. `scales` are those of the files of trained weights.
///
/// # Errors
/// The model or a file is known not to work.
pub(crate) fn check(
    plan: &PredictPlan,
    schedule: &Schedule,
    scales: &[f64],
    model: &Path,
) -> Result<(), ArgumentError> {
    let files = plan.replicate_weights.iter().map(|file| ("replicate_weights", file.as_path()));
    for (argument, path) in std::iter::once(("model", model)).chain(files) {
        let Some((name, needs)) = known(path) else { continue };
        if let Some(expected) = needs.refused {
            match needs.sampler {
                None => return Err(ArgumentError::new(argument, expected, name)),
                Some(sampler) if sampler != plan.scheduler.name() => {
                    return Err(ArgumentError::new("scheduler", expected, plan.scheduler.name()));
                }
                Some(_) => {}
            }
        }
        let differing = differences(needs, plan, schedule);
        if !differing.is_empty() {
            tracing::warn!("{name} is made for {}", differing.join(", "));
        }
    }
    if plan.steps < MANY && !scales.is_empty() && scales.iter().all(|scale| *scale < 1.0) {
        tracing::warn!(
            "lora_scale {} with {} steps: weights that are made for few steps need lora_scale 1",
            plan.lora_scale,
            plan.steps
        );
    }
    Ok(())
}

/// The known model or file that a path names, and its name. In the cache of a hub, a folder above the model has its name.
fn known(path: &Path) -> Option<(String, &'static Needs)> {
    let mut names = path.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let last = names.next()?;
    let cached = names.find_map(|name| Some(name.strip_prefix("models--")?.rsplit_once("--")?.1.to_string()));
    [Some(last), cached].into_iter().flatten().find_map(|name| {
        let plain = name.to_lowercase().replace('_', "-");
        let needs = KNOWN.iter().find(|needs| plain.starts_with(needs.name))?;
        Some((name, needs))
    })
}

/// The needs that the plan does not meet, each with what the plan has.
fn differences(needs: &Needs, plan: &PredictPlan, schedule: &Schedule) -> Vec<String> {
    let (steps, guidance) = (needs.steps, needs.guidance);
    let mut differing = Vec::new();
    if !(steps.0..=steps.1).contains(&plan.steps) {
        differing.push(format!("num_inference_steps {} (here {})", span(steps.0, steps.1), plan.steps));
    }
    if !(guidance.0..=guidance.1).contains(&plan.guidance_scale) {
        let expected = span(guidance.0, guidance.1);
        differing.push(format!("guidance_scale {expected} (here {})", plan.guidance_scale));
    }
    if let Some(sampler) = needs.sampler.filter(|sampler| *sampler != plan.scheduler.name()) {
        differing.push(format!("scheduler {sampler} (here {})", plan.scheduler.name()));
    }
    let spacing = schedule.timestep_spacing().filter(|spacing| *spacing != Spacing::Trailing);
    if let Some(spacing) = spacing.filter(|_| needs.trailing) {
        differing.push(format!("timestep_spacing trailing (here {})", spacing.name()));
    }
    differing
}

/// `4`, or `2 to 8`.
fn span<T: PartialEq + std::fmt::Display>(least: T, most: T) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::{Sampler, SchedulerConfig};

    fn plan(file: &str, steps: usize, guidance_scale: f64, sampler: &str) -> (PredictPlan, Schedule) {
        let scheduler = Sampler::find(sampler).expect("a sampler");
        let config = SchedulerConfig::parse("", r#"{"timestep_spacing": "leading"}"#).expect("an object");
        let plan = PredictPlan {
            steps,
            guidance_scale,
            scheduler,
            replicate_weights: vec![file.into()],
            ..PredictPlan::default()
        };
        (plan, Schedule::new(scheduler, &config, steps).expect("a schedule"))
    }

    /// Protects the names of published files, and the cache of a hub.
    #[test]
    fn published_names() {
        for (path, expected) in [
            ("a/sdxl_lightning_4step_lora.safetensors", Some("sdxl-lightning-4step")),
            ("Hyper-SDXL-8steps-CFG-lora.safetensors", Some("hyper-sdxl-8steps-cfg")),
            ("Hyper-SDXL-8steps-lora.safetensors", Some("hyper-sdxl-8steps")),
            ("Hyper-SDXL-1step-lora.safetensors", Some("hyper-sdxl-1step")),
            ("sd_xl_turbo_1.0_fp16.safetensors", Some("sd-xl-turbo")),
            ("hub/models--stabilityai--sdxl-turbo/snapshots/0a1b", Some("sdxl-turbo")),
            ("hub/models--stabilityai--stable-diffusion-xl-base-1.0/snapshots/0a1b", None),
            ("my_sdxl.safetensors", None),
        ] {
            assert_eq!(known(Path::new(path)).map(|(_, needs)| needs.name), expected, "{path}");
        }
    }

    /// Protects the note: it has each setting that does not suit, and no other.
    #[test]
    fn only_differences_are_told() {
        let told = |file: &str, steps, guidance, sampler| {
            let (plan, schedule) = plan(file, steps, guidance, sampler);
            let (_, needs) = known(Path::new(file)).expect("known");
            differences(needs, &plan, &schedule).join(", ")
        };
        let lightning = "sdxl_lightning_4step_lora.safetensors";
        assert_eq!(
            told(lightning, 50, 7.5, "K_EULER"),
            "num_inference_steps 4 (here 50), guidance_scale 1 (here 7.5), timestep_spacing trailing (here leading)"
        );
        assert_eq!(told(lightning, 4, 1.0, "DDIM"), "timestep_spacing trailing (here leading)");
        let lcm = "lcm-lora-sdxl.safetensors";
        assert_eq!(told(lcm, 4, 1.5, "LCM"), "");
        assert_eq!(
            told(lcm, 1, 3.0, "TCD"),
            "num_inference_steps 2 to 8 (here 1), guidance_scale 1 to 2 (here 3), scheduler LCM (here TCD)"
        );
    }

    /// Protects users of files that cannot work: the error says what to use.
    #[test]
    fn what_cannot_work_is_refused() {
        let refused = |file: &str, sampler: &str| {
            let (plan, schedule) = plan(file, 1, 1.0, sampler);
            check(&plan, &schedule, &[1.0], Path::new("base")).err().map(|error| error.to_string())
        };
        assert_eq!(
            refused("sdxl_lightning_1step_x0.safetensors", "K_EULER").as_deref(),
            Some(
                "replicate_weights: expected SDXL Lightning for 2, 4 or 8 steps (that for 1 step predicts the clean \
                 latents), found sdxl_lightning_1step_x0.safetensors"
            )
        );
        assert_eq!(
            refused("Hyper-SDXL-1step-lora.safetensors", "DDIM").as_deref(),
            Some("scheduler: expected TCD, which the unified LoRA of Hyper-SDXL needs, found DDIM")
        );
        assert_eq!(refused("Hyper-SDXL-1step-lora.safetensors", "TCD"), None);
    }
}
