//! `metrics.jsonl`: a line of JSON for each step and each validation.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chart::{Losses, is_drawn};
use crate::error::Error;
use crate::files;
use crate::trainer::StepReport;

/// The most bytes of a line. Lines that this program writes have about 150.
const MAX_LINE: u64 = 1 << 16;

/// The file, and the losses in it.
pub struct Metrics {
    path: PathBuf,
    file: File,
    losses: Losses,
    /// The steps of the last line of an end: after which the run ended, and after which its weights were taken.
    ended: Option<(usize, usize)>,
}

impl Metrics {
    /// Opens the file of a run that continues after `done` steps. The lines of later steps are dropped, and so is an incomplete
    /// line. The kept lines are written to a new file that replaces the old one, because the old one may have other names in
    /// other folders (hard links).
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: PathBuf, done: usize) -> Result<Metrics, Error> {
        let MetricsRead { losses, kept, ended } = read(&path, done)?;
        let failed = |source| Error::Io { path: path.clone(), source };
        match File::open(&path) {
            Ok(file) => files::write_file(&path, |to| std::io::copy(&mut file.take(kept), to).map(drop))
                .map_err(failed)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        Ok(Metrics { path, file, losses, ended })
    }

    /// Appends the line of a step.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn step(&mut self, report: &StepReport, took: Duration) -> Result<(), Error> {
        let step = report.step + 1;
        let StepReport { loss, grad_norm, lr, ti_lr, .. } = *report;
        self.losses.training.push((step as f64, loss));
        let seconds = (took.as_secs_f64() * 1e3).round() / 1e3;
        self.line(&json!({
            "step": step, "loss": loss, "grad_norm": grad_norm, "lr": lr, "ti_lr": ti_lr, "seconds": seconds
        }))
    }

    /// Appends the line of a validation after `step` steps.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn validation(&mut self, step: usize, loss: f64) -> Result<(), Error> {
        self.losses.validation.push((step as f64, loss));
        self.line(&json!({ "step": step, "validation_loss": loss }))
    }

    /// Appends the line of the end of a run after `step` steps, whose result is the weights after `best.0` steps with the
    /// validation loss `best.1`, unless the file has that line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(&mut self, step: usize, stopped: bool, best: (usize, f64)) -> Result<(), Error> {
        let (best_step, loss) = best;
        if self.ended == Some((step, best_step)) {
            return Ok(());
        }
        self.ended = Some((step, best_step));
        self.line(&json!({
            "step": step, "stopped": stopped, "best_step": best_step, "best_validation_loss": loss
        }))
    }

    /// Whether the file has a validation after `step` steps.
    pub fn has_validation_at(&self, step: usize) -> bool {
        self.losses.validation.last().is_some_and(|(last, _)| *last == step as f64)
    }

    /// The losses for a chart with this title.
    pub fn losses(&self, title: String, steps: usize) -> Losses {
        Losses { title, steps, ..self.losses.clone() }
    }

    fn line(&mut self, value: &Value) -> Result<(), Error> {
        // In one write, so that a program that follows the file reads whole lines.
        self.file
            .write_all(format!("{value}\n").as_bytes())
            .map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

/// The losses of a run's first steps in its file.
pub struct MetricsRead {
    /// Their losses.
    pub losses: Losses,
    /// The number of bytes of their lines.
    kept: u64,
    /// As in [`Metrics`].
    ended: Option<(usize, usize)>,
}

/// Reads the file at `path`, if it exists, up to step `done` or to a damaged line. A loss out of the range of f32 is skipped.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path, done: usize) -> Result<MetricsRead, Error> {
    let failed = |source| Error::Io { path: path.into(), source };
    let mut found = MetricsRead { losses: Losses::default(), kept: 0, ended: None };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(failed(e)),
    };
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    loop {
        line.clear();
        let count = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if !line.ends_with(b"\n") || !add(&line, done, &mut found) {
            break;
        }
        found.kept += count as u64;
    }
    Ok(found)
}

/// Adds the losses of a line. Returns false if the line is damaged, is of a step after `done`, or is not later
/// than the previous one.
fn add(line: &[u8], done: usize, found: &mut MetricsRead) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
    let Some(step) = value["step"].as_u64().filter(|&step| step <= done as u64) else { return false };
    if let Some(best) = value["best_step"].as_u64() {
        found.ended = usize::try_from(step).ok().zip(usize::try_from(best).ok());
    }
    let losses = &mut found.losses;
    for (name, to) in [("loss", &mut losses.training), ("validation_loss", &mut losses.validation)] {
        let Some(loss) = value[name].as_f64() else { continue };
        if to.last().is_some_and(|(last, _)| *last >= step as f64) {
            return false;
        }
        if is_drawn(loss) {
            to.push((step as f64, loss));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Protects against any content of the file: reading ends, takes little memory, and gives losses that can be drawn.
    #[test]
    fn a_file_of_somebody_else() {
        let here = tempfile::tempdir().expect("a directory");
        let path = here.path().join("metrics.jsonl");
        let line = "{\"step\":1,\"loss\":0.5}\n";
        for (text, kept, losses) in [
            (
                "{\"step\":1,\"loss\":1.7976931348623157e308}\n".to_string()
                    + "{\"step\":2,\"loss\":-1e39}\n",
                65,
                0,
            ),
            (line.repeat(3), line.len() as u64, 1),
            ("{\"step\":1,\"loss\":".to_string() + &" ".repeat(1 << 17) + "1}\n", 0, 0),
            ("[".repeat(200_000) + "\n", 0, 0),
            ("{\"step\":-1,\"loss\":1}\n".into(), 0, 0),
            ("{\"step\":1e3,\"loss\":1}\n".into(), 0, 0),
            ("{\"step\":1,\"loss\":\"a\"}\n".into(), 22, 0),
        ] {
            fs::write(&path, &text).expect("written");
            let found = read(&path, 9).expect("read");
            assert_eq!((found.kept, found.losses.training.len()), (kept, losses), "{text:.60}");
        }
    }

    /// Protects files with hard links in other folders: the run does not append to such a file, but gets one of its own.
    #[test]
    fn a_file_with_another_name() {
        let here = tempfile::tempdir().expect("a directory");
        let [path, theirs] = ["metrics.jsonl", "theirs.log"].map(|name| here.path().join(name));
        let line = "{\"step\":1,\"loss\":0.5}\n";
        for done in [0, 1] {
            fs::write(&theirs, line).expect("written");
            fs::hard_link(&theirs, &path).expect("linked");
            let mut metrics = Metrics::open(path.clone(), done).expect("opened");
            metrics.validation(9, 1.0).expect("written");
            assert_eq!(fs::read_to_string(&theirs).expect("there"), line);
            let found = fs::read_to_string(&path).expect("there");
            assert_eq!(found.lines().count(), 1 + done, "{found}");
            fs::remove_file(&path).expect("removed");
        }
    }

    /// Protects the file of a resumed run: it has the lines up to the checkpoint, and no part of a line.
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
