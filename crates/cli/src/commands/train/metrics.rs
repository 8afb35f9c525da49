//! `metrics.jsonl`: a line of JSON for each step and each validation.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use calotype_sdxl::train::StepReport;
use calotype_sdxl::train::chart::Losses;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;

/// The file, and what is in it.
pub struct Metrics {
    path: PathBuf,
    file: File,
    losses: Losses,
}

impl Metrics {
    /// Opens the file of a run of which `done` steps are kept: the lines of later steps are cut off, and with them one
    /// that was not written to its end.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(path: PathBuf, done: usize) -> Result<Metrics, Failure> {
        let Read { losses, kept, cut } = read(&path, done)?;
        if cut {
            output::write_bytes(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| Failure::io(&path, &e))?;
        Ok(Metrics { path, file, losses })
    }

    /// Adds a step's line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn step(&mut self, report: &StepReport, took: Duration) -> Result<(), Failure> {
        let step = report.step + 1;
        let StepReport { loss, grad_norm, lr, ti_lr, .. } = *report;
        self.losses.training.push((step as f64, loss));
        let seconds = (took.as_secs_f64() * 1e3).round() / 1e3;
        self.line(&json!({
            "step": step, "loss": loss, "grad_norm": grad_norm, "lr": lr, "ti_lr": ti_lr, "seconds": seconds
        }))
    }

    /// Adds the line of a validation after `step` steps.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn validation(&mut self, step: usize, loss: f64) -> Result<(), Failure> {
        self.losses.validation.push((step as f64, loss));
        self.line(&json!({ "step": step, "validation_loss": loss }))
    }

    /// Whether there has been a validation.
    pub fn has_validation(&self) -> bool {
        !self.losses.validation.is_empty()
    }

    /// What there is to draw.
    pub fn losses(&self, title: String, steps: usize) -> Losses {
        Losses { title, steps, ..self.losses.clone() }
    }

    fn line(&mut self, value: &Value) -> Result<(), Failure> {
        // In one piece, so that whoever follows the file reads whole lines.
        self.file.write_all(format!("{value}\n").as_bytes()).map_err(|e| Failure::io(&self.path, &e))
    }
}

/// What the file of a run has of its first steps.
pub struct Read {
    pub losses: Losses,
    /// Their lines.
    kept: String,
    /// Whether there is more in the file.
    cut: bool,
}

/// Reads the file at `path`, if there is one, up to step `done`, or to where it is damaged.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path, done: usize) -> Result<Read, Failure> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Failure::io(path, &e)),
    };
    let (mut losses, mut kept) = (Losses::default(), String::new());
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let Ok(value) = serde_json::from_str::<Value>(line) else { break };
        let Some(step) = value["step"].as_u64().filter(|&step| step <= done as u64) else { break };
        let add = |to: &mut Vec<(f64, f64)>, name: &str| {
            to.extend(value[name].as_f64().map(|loss| (step as f64, loss)));
        };
        add(&mut losses.training, "loss");
        add(&mut losses.validation, "validation_loss");
        kept.push_str(line);
    }
    let cut = kept != text;
    Ok(Read { losses, kept, cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a resumed run's file has the lines up to its checkpoint, and no half of a line.
    #[test]
    fn later_lines_are_cut_off() {
        let here = tempfile::tempdir().expect("a directory");
        let path = here.path().join("metrics.jsonl");
        let lines = [
            "{\"step\":1,\"loss\":0.5}\n",
            "{\"step\":2,\"loss\":0.25}\n",
            "{\"step\":2,\"validation_loss\":1.0}\n",
        ];
        let whole = lines.concat();
        for (text, done, kept) in [
            (whole.clone() + "{\"step\":3,\"loss\":0.1}\n{\"st", 2, whole.clone()),
            (whole.clone(), 1, lines[0].into()),
            (whole.clone() + "\0\0\0", 9, whole.clone()),
            (String::new(), 0, String::new()),
        ] {
            fs::write(&path, text).expect("written");
            let metrics = Metrics::open(path.clone(), done).expect("opened");
            assert_eq!(fs::read_to_string(&path).expect("there"), kept);
            assert_eq!(metrics.losses.validation.len(), kept.matches("validation").count());
        }
        let report = StepReport { step: 0, loss: 0.5, grad_norm: 1.0, lr: 1e-4, ti_lr: 0.0 };
        let mut metrics = Metrics::open(path.clone(), 0).expect("opened");
        metrics.step(&report, Duration::from_millis(1500)).expect("written");
        let line =
            "{\"step\":1,\"loss\":0.5,\"grad_norm\":1.0,\"lr\":0.0001,\"ti_lr\":0.0,\"seconds\":1.5}\n";
        assert_eq!(fs::read_to_string(&path).expect("there"), line);
    }
}
