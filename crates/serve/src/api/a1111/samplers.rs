//! The web UI's names of samplers, and ours.

use crate::api::body;
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
        aliases: &["k_euler_a", "euler_a", "k_euler_ancestral"],
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

/// Samplers that there are not, and those of [`SAMPLERS`] that come nearest: these solve the same equation, with or without noise in each
/// step, in another way. Their pictures are alike in kind, not in detail.
const NEAR: [(&str, &[&str], &str); 6] = [
    ("DPM++ SDE", &["k_dpmpp_sde"], "DPM++ 2M SDE"),
    ("DPM++ 2M SDE Heun", &["k_dpmpp_2m_sde_heun"], "DPM++ 2M SDE"),
    ("DPM++ 3M SDE", &["k_dpmpp_3m_sde"], "DPM++ 2M SDE"),
    ("DPM++ 2S a", &["k_dpmpp_2s_a"], "Euler a"),
    ("DPM2", &["k_dpm_2"], "Heun"),
    ("DPM2 a", &["k_dpm_2_a"], "Euler a"),
];

/// The most characters of a schedule's name that an answer shows.
const SHOWN: usize = 40;

/// The sampler that a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// The web UI's name.
    pub name: &'static str,
    /// Ours.
    pub ours: &'static str,
    /// What was asked for, and what stands for it, where that is not the same.
    pub approximated: Option<String>,
}

/// The sampler for the names of a sampler and of a schedule of noise levels, both the web UI's. Without names: Euler, as in the web UI.
///
/// # Errors
/// There is neither such a sampler nor one that is near.
pub(super) fn choice(name: &str, schedule: &str) -> Result<Choice, Refusal> {
    let name = if name.is_empty() { "Euler" } else { name };
    // Names of old: with the schedule.
    let (name, of_name) = match named(name) {
        Some(_) => (name, ""),
        None => split(name),
    };
    let Some((wanted, sampler)) = named(name) else {
        let known: Vec<&str> = SAMPLERS.iter().map(|sampler| sampler.theirs).collect();
        let problem = format!("expected one of {}, found {}", known.join(", "), body::short(&name.into()));
        return Err(Refusal::body("sampler_name", problem));
    };
    let mut parts = Vec::new();
    if wanted != sampler.theirs {
        parts.push(format!("{wanted} by {}", sampler.theirs));
    }
    let asked = match schedule.to_ascii_lowercase().as_str() {
        "" | "automatic" => of_name.to_string(),
        asked => asked.to_string(),
    };
    let ours = match (asked.as_str(), sampler.karras) {
        ("" | "normal", _) => sampler.ours,
        ("karras", Some(karras)) => karras,
        ("karras", None) => {
            parts.push(format!("Karras by the noise levels of {}", sampler.theirs));
            sampler.ours
        }
        // The web UI takes `Automatic` for a schedule that it does not know, too.
        (asked, _) => {
            let shown = if schedule.is_empty() { asked } else { schedule };
            let shown: String = shown.chars().take(SHOWN).collect();
            parts.push(format!("{shown} by the noise levels of {}", sampler.theirs));
            sampler.ours
        }
    };
    let approximated = (!parts.is_empty()).then(|| parts.join(" and "));
    Ok(Choice { name: sampler.theirs, ours, approximated })
}

/// A sampler of any of its names, and the one that stands for it, which is itself where there is the sampler.
fn named(name: &str) -> Option<(&'static str, &'static Sampler)> {
    let is = |known: &&str| known.eq_ignore_ascii_case(name);
    let own =
        SAMPLERS.iter().find(|sampler| [sampler.theirs, sampler.ours].iter().chain(sampler.aliases).any(is));
    let near = || {
        let (theirs, _, near) =
            NEAR.iter().find(|(theirs, aliases, _)| is(theirs) || aliases.iter().any(is))?;
        Some((*theirs, SAMPLERS.iter().find(|sampler| sampler.theirs == *near)?))
    };
    own.map(|sampler| (sampler.theirs, sampler)).or_else(near)
}

/// A name without the schedule at its end, and the schedule.
fn split(name: &str) -> (&str, &'static str) {
    for (end, schedule) in [(" karras", "karras"), ("_ka", "karras")] {
        let at = name.len().saturating_sub(end.len());
        if name.get(at..).is_some_and(|last| last.eq_ignore_ascii_case(end)) {
            return (&name[..at], schedule);
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::{SAMPLERS, choice};
    use calotype_request::PredictInput;

    /// Protects: each name leads to a sampler that there is, and what there is not is refused by name.
    #[test]
    fn names() {
        let schema = PredictInput::command_line_schema();
        let choices = schema.json()["properties"]["scheduler"]["enum"].as_array().unwrap().clone();
        for sampler in &SAMPLERS {
            assert!(choices.iter().any(|choice| choice == sampler.ours), "{}", sampler.ours);
        }
        for (name, _, near) in super::NEAR {
            assert!(SAMPLERS.iter().any(|sampler| sampler.theirs == near), "{name}");
        }
        let cases = [
            ("", "", Ok(("Euler", "K_EULER", ""))),
            ("euler A", "automatic", Ok(("Euler a", "K_EULER_ANCESTRAL", ""))),
            ("DPM++ 2M", "Karras", Ok(("DPM++ 2M", "KarrasDPM", ""))),
            ("DPM++ 2M Karras", "", Ok(("DPM++ 2M Karras", "KarrasDPM", ""))),
            ("DPM++ 2M Karras", "Automatic", Ok(("DPM++ 2M Karras", "KarrasDPM", ""))),
            ("k_dpmpp_2m", "Normal", Ok(("DPM++ 2M", "DPMSolverMultistep", ""))),
            ("K_EULER", "", Ok(("Euler", "K_EULER", ""))),
            (
                "Euler a",
                "Karras",
                Ok(("Euler a", "K_EULER_ANCESTRAL", "Karras by the noise levels of Euler a")),
            ),
            (
                "Euler a Karras",
                "",
                Ok(("Euler a", "K_EULER_ANCESTRAL", "Karras by the noise levels of Euler a")),
            ),
            ("Euler", "SGM Uniform", Ok(("Euler", "K_EULER", "SGM Uniform by the noise levels of Euler"))),
            ("DPM++ SDE", "", Ok(("DPM++ 2M SDE", "DPMSolverMultistepSDE", "DPM++ SDE by DPM++ 2M SDE"))),
            (
                "k_dpmpp_sde_ka",
                "",
                Ok((
                    "DPM++ 2M SDE",
                    "DPMSolverMultistepSDE",
                    "DPM++ SDE by DPM++ 2M SDE and Karras by the noise levels of DPM++ 2M SDE",
                )),
            ),
            (
                "DPM++ 2M SDE Karras",
                "",
                Ok(("DPM++ 2M SDE", "DPMSolverMultistepSDE", "Karras by the noise levels of DPM++ 2M SDE")),
            ),
            ("Euler", "Exponential", Ok(("Euler", "K_EULER", "Exponential by the noise levels of Euler"))),
            ("DPM fast", "", Err("sampler_name: expected one of DPM++ 2M, ")),
            ("猫", "", Err("sampler_name: expected one of DPM++ 2M, ")),
        ];
        for (name, schedule, expected) in cases {
            match (choice(name, schedule), expected) {
                (Ok(found), Ok(expected)) => {
                    let approximated = found.approximated.as_deref().unwrap_or_default();
                    assert_eq!((found.name, found.ours, approximated), expected, "{name} {schedule}");
                }
                (Err(found), Err(expected)) => assert!(found.message.starts_with(expected), "{found:?}"),
                (found, _) => panic!("{name} {schedule}: {found:?}"),
            }
        }
    }
}
