//! The safety checker of a request: where its weights are, and what becomes of flagged pictures.

use std::path::{Path, PathBuf};

use calotype_models::SafetyScores;
use calotype_sdxl::pipeline::Image;
use calotype_sdxl::safety::Safety;

use crate::failure::Failure;
use crate::hub;

/// The folder of a safety checker within that of a model.
const FOLDER: &str = "safety_checker";
/// Printed where there are no weights.
pub const NOTICE: &str = "pictures pass no safety checker: there are no weights for it (--safety-checker DIR|NAME; \
                          -i disable_safety_checker=true: without this line)";

/// The safety checker that `--safety-checker` names, or the one in the model's folder, if any. `None` with `disabled`. One that has
/// a name on a hub is fetched, with a progress bar on a terminal unless `quiet`.
///
/// # Errors
/// `--safety-checker` was given although the safety checker is disabled, or cannot be fetched, or a file is missing or invalid.
pub fn open(
    given: Option<&Path>,
    model: &Path,
    disabled: bool,
    quiet: bool,
) -> Result<Option<Safety>, Failure> {
    let folder = match given {
        Some(given) if disabled => {
            return Err(Failure::BadInput(format!(
                "--safety-checker {}: expected no disable_safety_checker=true beside it, found both",
                given.display()
            )));
        }
        Some(given) => given_folder(given, quiet)?,
        None if disabled || !is_checker(&model.join(FOLDER)) => return Ok(None),
        None => model.join(FOLDER),
    };
    Ok(Some(Safety::open(&folder)?))
}

/// The folder itself, or the safety checker within the folder of a model.
fn given_folder(given: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    let folder = hub::component(hub::Kind::SafetyChecker, given, quiet)?;
    match [folder.join(FOLDER), folder].into_iter().find(|folder| is_checker(folder)) {
        Some(folder) => Ok(folder),
        None => Err(Failure::BadInput(format!(
            "--safety-checker {}: expected a folder with a safety checker's config.json, found none",
            given.display()
        ))),
    }
}

fn is_checker(folder: &Path) -> bool {
    folder.join("config.json").is_file()
}

/// For each picture, why it is not written, or `None`.
pub fn reasons(safety: Option<&Safety>, images: &[Image]) -> Vec<Option<String>> {
    let check = |safety: &Safety, image| reason(&safety.scores(image));
    images.iter().map(|image| safety.and_then(|safety| check(safety, image))).collect()
}

/// The concepts that a flagged picture is near, by number.
fn reason(scores: &SafetyScores) -> Option<String> {
    let near = scores.near().into_iter().map(|(i, score)| format!("concept {i} by {score:.3}"));
    let near: Vec<String> = near.collect();
    scores.is_flagged().then(|| format!("flagged by the safety checker ({})", near.join(", ")))
}
