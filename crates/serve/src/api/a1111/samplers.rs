//! The web UI's names of samplers, and ours.

use crate::api::refusal::Refusal;

/// A sampler: the web UI's name, ours, and other names by which the web UI knows it.
pub(super) struct Sampler {
    pub theirs: &'static str,
    pub ours: &'static str,
    pub aliases: &'static [&'static str],
    /// Our name of the sampler with Karras' noise levels, where there is one.
    pub karras: Option<&'static str>,
}

/// All samplers.
pub(super) const SAMPLERS: [Sampler; 11] = [
    Sampler {
        theirs: "DPM++ 2M",
        ours: "DPMSolverMultistep",
        aliases: &["k_dpmpp_2m"],
        karras: Some("KarrasDPM"),
    },
    Sampler {
        theirs: "DPM++ 2M Karras",
        ours: "KarrasDPM",
        aliases: &["k_dpmpp_2m_ka"],
        karras: Some("KarrasDPM"),
    },
    Sampler { theirs: "Euler", ours: "K_EULER", aliases: &["k_euler"], karras: None },
    Sampler {
        theirs: "Euler a",
        ours: "K_EULER_ANCESTRAL",
        aliases: &["k_euler_a", "k_euler_ancestral"],
        karras: None,
    },
    Sampler { theirs: "Heun", ours: "HeunDiscrete", aliases: &["k_heun"], karras: None },
    Sampler { theirs: "DDIM", ours: "DDIM", aliases: &["ddim"], karras: None },
    Sampler { theirs: "PLMS", ours: "PNDM", aliases: &["plms"], karras: None },
    Sampler {
        theirs: "DPM++ 2M SDE",
        ours: "DPMSolverMultistepSDE",
        aliases: &["k_dpmpp_2m_sde"],
        karras: None,
    },
    Sampler { theirs: "UniPC", ours: "UniPC", aliases: &["unipc"], karras: None },
    Sampler { theirs: "LCM", ours: "LCM", aliases: &["k_lcm"], karras: None },
    Sampler { theirs: "TCD", ours: "TCD", aliases: &["tcd"], karras: None },
];

/// The scheduler of a sampler and a schedule of noise levels, both by the web UI's names. Without names: Euler, as in the web UI.
///
/// # Errors
/// There is no such sampler or no such schedule of it.
pub(super) fn scheduler(name: &str, schedule: &str) -> Result<&'static str, Refusal> {
    let name = if name.is_empty() { "Euler" } else { name };
    let is_named = |sampler: &&Sampler| {
        let mut names = [sampler.theirs, sampler.ours].into_iter().chain(sampler.aliases.iter().copied());
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    let Some(sampler) = SAMPLERS.iter().find(is_named) else {
        let known: Vec<&str> = SAMPLERS.iter().map(|sampler| sampler.theirs).collect();
        return Err(Refusal::body(
            "sampler_name",
            format!("expected one of {}, found {name:?}", known.join(", ")),
        ));
    };
    match schedule.to_ascii_lowercase().as_str() {
        "" | "automatic" | "normal" => Ok(sampler.ours),
        "karras" => sampler.karras.ok_or_else(|| {
            Refusal::body("scheduler", format!("Karras goes with DPM++ 2M, not with {}", sampler.theirs))
        }),
        _ => Err(Refusal::body("scheduler", format!("expected Automatic or Karras, found {schedule:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLERS, scheduler};
    use calotype_request::PredictInput;

    /// Protects: each name leads to a sampler that there is, and what there is not is refused by name.
    #[test]
    fn names() {
        let schema = PredictInput::command_line_schema();
        let choices = schema.json()["properties"]["scheduler"]["enum"].as_array().unwrap().clone();
        for sampler in &SAMPLERS {
            assert!(choices.iter().any(|choice| choice == sampler.ours), "{}", sampler.ours);
        }
        let cases = [
            ("", "", Ok("K_EULER")),
            ("euler A", "automatic", Ok("K_EULER_ANCESTRAL")),
            ("DPM++ 2M", "Karras", Ok("KarrasDPM")),
            ("DPM++ 2M Karras", "", Ok("KarrasDPM")),
            ("k_dpmpp_2m", "Normal", Ok("DPMSolverMultistep")),
            ("K_EULER", "", Ok("K_EULER")),
            ("Euler", "Karras", Err("scheduler: Karras goes with DPM++ 2M")),
            ("Euler", "Exponential", Err("scheduler: expected Automatic or Karras")),
            ("DPM fast", "", Err("sampler_name: expected one of DPM++ 2M, ")),
        ];
        for (name, schedule, expected) in cases {
            match (scheduler(name, schedule), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.message.starts_with(expected), "{found:?}"),
                (found, _) => panic!("{name} {schedule}: {found:?}"),
            }
        }
    }
}
