//! Preparations: requests → `calotype preprocess`, and what `calotype train` says that a training on the set would take.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use calotype_request::TrainInput;
use calotype_serve::engine::{EngineError, Forecast, Prepared, PreparedPicture, Work};
use calotype_train::dataset::Picture;
use calotype_train::preprocess::write_zip;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::arguments;
use super::child::Child;
use super::lines::Lines;
use super::trainings::{Trainings, failed};

/// What `calotype preprocess` says of a set.
#[derive(Deserialize)]
struct Report {
    pictures: Vec<Picture>,
    warnings: Vec<String>,
}

impl Trainings {
    /// Makes the set of a training in `folder`, which is empty, and says what the training would take.
    ///
    /// # Errors
    /// The request is wrong, the preprocessing fails, or `work` stops it.
    pub fn prepare(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Prepared, EngineError> {
        arguments::check_texts(input)?;
        let [texts, set, report, zip] =
            ["texts", "set", "report.json", "set.zip"].map(|name| folder.join(name));
        fs::create_dir(&texts).map_err(failed)?;
        let args = self.preprocess_args(input, &set, &report, &texts).map_err(failed)?;
        let lines = Lines::default();
        let status = self.run_or_stop(&args, &lines, Some(work), work)?;
        if !status.success() {
            return Err(lines.error(status, input));
        }
        let Report { pictures, mut warnings } = read(&report)?;
        write_zip(&set, &pictures, &zip).map_err(|e| EngineError::Failed(e.to_string()))?;
        let (forecast, problem) = self.forecast(input, &set, folder, work)?;
        warnings.extend(problem);
        Ok(Prepared {
            set: zip,
            contact_sheet: set.join("contact_sheet.png"),
            pictures: pictures.into_iter().map(|picture| prepared(picture, &set)).collect(),
            warnings,
            forecast,
            metrics: Map::new(),
        })
    }

    fn preprocess_args(
        &self,
        input: &Map<String, Value>,
        set: &Path,
        report: &Path,
        texts: &Path,
    ) -> io::Result<Vec<OsString>> {
        let mut args: Vec<OsString> = vec!["preprocess".into(), "--end-with-stdin".into()];
        args.extend(["--output".into(), set.into(), "--report".into(), report.into()]);
        args.extend(self.options.iter().cloned());
        args.extend(arguments::fields(&TrainInput::preprocess_schema(), input, texts)?);
        Ok(args)
    }

    /// What a training on the prepared set would take; or why it would not begin.
    fn forecast(
        &self,
        input: &Map<String, Value>,
        set: &Path,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<(Forecast, Option<String>), EngineError> {
        let [run, to, texts] = ["run", "forecast.json", "texts"].map(|name| folder.join(name));
        let mut input = input.clone();
        input.insert("input_images".into(), set.to_string_lossy().into_owned().into());
        input.remove("input_images_filetype");
        let mut args = self.args(&input, &run, &texts).map_err(failed)?;
        args.extend(["--forecast".into(), to.clone().into()]);
        let lines = Lines::default();
        if self.run_or_stop(&args, &lines, None, work)?.success() {
            return Ok((read(&to)?, None));
        }
        let given = input.get("max_train_steps").and_then(Value::as_u64);
        let steps = given.and_then(|steps| usize::try_from(steps).ok());
        Ok((Forecast { steps, ..Forecast::default() }, lines.last_error()))
    }

    /// [`Trainings::run`] of a process that leaves nothing to go on from: whatever stops it ends it at once.
    fn run_or_stop(
        &self,
        args: &[OsString],
        lines: &Lines,
        told: Option<&dyn Work>,
        work: &dyn Work,
    ) -> Result<ExitStatus, EngineError> {
        match self.run(args, lines, told, work, Child::kill, || {})? {
            (status, None) => Ok(status),
            (_, Some(stop)) => Err(EngineError::Stopped(stop)),
        }
    }
}

fn prepared(picture: Picture, set: &Path) -> PreparedPicture {
    let file = |ending: &str| set.join(format!("{}.{ending}", picture.name));
    PreparedPicture {
        picture: file("png"),
        mask: picture.has_mask.then(|| file("mask.png")),
        name: format!("{}.png", picture.name),
        caption: picture.caption,
        size: picture.size,
        upscaled: picture.upscaled,
        warnings: picture.warnings,
    }
}

/// What a process has written for this one.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, EngineError> {
    let text = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|e| EngineError::Failed(e.to_string()))
}
