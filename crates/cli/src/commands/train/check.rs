//! Checks a run's folder before anything in it is used. The folder may come from somebody else, so it is checked
//! like a request.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use calotype_request::{InputError, TrainInput};
use serde_json::Value;

use super::record::Record;
use crate::plans;
use calotype_train::run::SETTINGS;

/// The most bytes of `settings.json`.
const MAX_SETTINGS: u64 = 16 << 20;
/// The most denoising steps of a sample, the same as for any picture.
const MAX_SAMPLE_STEPS: usize = 500;

/// Reads the settings in a run's folder.
///
/// # Errors
/// They are missing, not JSON, or contain values that no request or command line can have.
pub fn settings(dir: &Path) -> Result<Record, String> {
    let path = dir.join(SETTINGS);
    let bad = |what: String| format!("{SETTINGS}: {what}");
    let file = fs::File::open(&path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            format!("expected the folder of a run, found no {SETTINGS} in it")
        }
        _ => bad(e.to_string()),
    })?;
    let mut text = String::new();
    file.take(MAX_SETTINGS + 1).read_to_string(&mut text).map_err(|e| bad(e.to_string()))?;
    if text.len() as u64 > MAX_SETTINGS {
        return Err(bad(format!("expected at most {MAX_SETTINGS} bytes, found more")));
    }
    parse(&text).map_err(bad)
}

fn parse(text: &str) -> Result<Record, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if let Some(request) = json["request"].as_object() {
        TrainInput::from_json(request.clone()).map_err(|e| in_request(e).to_string())?;
    }
    let record: Record = serde_path_to_error::deserialize(json).map_err(|e| {
        let path = e.path().to_string();
        let problem = e.into_inner();
        if path == "." { problem.to_string() } else { format!("{path}: {problem}") }
    })?;
    plans::check_train(&record.plan, &record.request).map_err(|e| e.to_string())?;
    numbers(&record).map_err(|e| e.to_string())?;
    Ok(record)
}

fn in_request(e: InputError) -> InputError {
    InputError { field: format!("request.{}", e.field), ..e }
}

/// Checks the ranges of the settings beyond the plan, which are those of the command line.
fn numbers(record: &Record) -> Result<(), InputError> {
    let most = u32::MAX as usize;
    let every = record.sample_every.unwrap_or(1);
    for (name, value, most) in [
        ("validate_every", record.validate_every, most),
        ("sample_every", every, most),
        ("keep_checkpoints", record.keep_checkpoints, most),
        ("sample_steps", record.sample_steps, MAX_SAMPLE_STEPS),
    ] {
        if !(1..=most).contains(&value) {
            return Err(InputError::value(name, format!("an integer from 1 to {most}"), value.to_string()));
        }
    }
    Ok(())
}
