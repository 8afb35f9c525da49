//! What a run's folder tells on the way: losses, samples, checkpoints.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use calotype_serve::engine::{Progress, Work};
use calotype_train::run::{CHECKPOINTS, METRICS, SAMPLES, SETTINGS};
use serde_json::Value;

/// The most losses that are told.
const LOSSES: usize = 300;
/// The last steps, whose time says how long the others take.
const LAST: usize = 20;

/// Follows a run.
pub struct Follow<'a> {
    folder: &'a Path,
    /// The steps of the whole run, once the run has begun.
    steps: Option<usize>,
    /// The bytes of the metrics that were read.
    read: u64,
    losses: Vec<(usize, f64)>,
    /// The seconds of each step.
    seconds: Vec<f64>,
    /// The samples that were told.
    samples: Vec<PathBuf>,
    /// The newest checkpoint that was seen; an empty name for a run without.
    checkpoint: Option<String>,
}

impl<'a> Follow<'a> {
    pub fn new(folder: &'a Path) -> Follow<'a> {
        let (steps, read, losses, seconds, samples, checkpoint) = Default::default();
        Follow { folder, steps, read, losses, seconds, samples, checkpoint }
    }

    /// Tells what is new. What cannot be read now is read the next time.
    pub fn tell(&mut self, work: &dyn Work) {
        if self.steps.is_none() {
            self.steps = self.settings();
        }
        let Some(total) = self.steps else { return };
        let _ = self.read_metrics();
        let done = self.losses.last().map_or(0, |(step, _)| *step);
        let last = &self.seconds[self.seconds.len().saturating_sub(LAST)..];
        let pace = last.iter().sum::<f64>() / last.len().max(1) as f64;
        let seconds_left = (!last.is_empty()).then(|| pace * total.saturating_sub(done) as f64);
        let losses = thinned(&self.losses);
        work.progress(Progress { stage: "training".into(), done, total, seconds_left, losses });
        let _ = self.tell_samples(work);
    }

    /// Whether the run has a checkpoint that was not there at the last call, or has begun since.
    pub fn has_new_checkpoint(&mut self) -> bool {
        if self.steps.is_none() {
            return false;
        }
        let names = names(&self.folder.join(CHECKPOINTS)).into_iter();
        let newest =
            names.filter(|name| name.starts_with("step-")).max_by_key(|name| (name.len(), name.clone()));
        let newest = Some(newest.unwrap_or_default());
        let is_new = newest != self.checkpoint;
        self.checkpoint = newest;
        is_new
    }

    /// The loss after the last step.
    pub fn last_loss(&self) -> Option<(usize, f64)> {
        self.losses.last().copied()
    }

    /// The steps of a run that has begun.
    fn settings(&self) -> Option<usize> {
        let settings: Value = serde_json::from_slice(&fs::read(self.folder.join(SETTINGS)).ok()?).ok()?;
        usize::try_from(settings["plan"]["steps"].as_u64()?).ok()
    }

    /// Reads the lines that were added to the metrics. A resumed run replaces the file by a shorter one.
    fn read_metrics(&mut self) -> io::Result<()> {
        let mut file = File::open(self.folder.join(METRICS))?;
        if file.metadata()?.len() < self.read {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            let step = value["step"].as_u64().and_then(|step| usize::try_from(step).ok());
            let Some((step, loss)) = step.zip(value["loss"].as_f64()) else { continue };
            let earlier = self.losses.partition_point(|(known, _)| *known < step);
            self.losses.truncate(earlier);
            self.seconds.truncate(earlier);
            self.losses.push((step, loss));
            self.seconds.push(value["seconds"].as_f64().unwrap_or(0.0));
        }
        Ok(())
    }

    fn tell_samples(&mut self, work: &dyn Work) -> io::Result<()> {
        let folder = self.folder.join(SAMPLES);
        let mut all: Vec<PathBuf> = names(&folder).iter().map(|name| folder.join(name)).collect();
        all.sort();
        for path in all {
            if !self.samples.contains(&path) {
                work.preview(self.samples.len(), &fs::read(&path)?);
                self.samples.push(path);
            }
        }
        Ok(())
    }
}

/// The names in a folder, but for those of unfinished files.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Some hundreds of the losses, with the last.
fn thinned(losses: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let stride = losses.len().div_ceil(LOSSES).max(1);
    losses.iter().rev().step_by(stride).rev().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects the curve of a long run: it has few points, and the last.
    #[test]
    fn losses_are_few() {
        for count in [0, 1, 299, 300, 301, 10_000] {
            let all: Vec<(usize, f64)> = (1..=count).map(|step| (step, 1.0)).collect();
            let few = thinned(&all);
            assert!(few.len() <= LOSSES && few.len() >= count.min(LOSSES / 2), "{count}: {}", few.len());
            assert_eq!(few.last(), all.last());
        }
    }
}
