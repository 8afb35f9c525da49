//! Checkpoints: the state of a training on disk, between two steps. A resumed training ends with the same bytes as an
//! uninterrupted one.
//!
//! ```text
//! RUN/checkpoints/step-000200/state.safetensors   every parameter NAME, and its optimizer's NAME.exp_avg, …; f32
//!                             state.json          steps done, plan, dtype, instruction set, optimizer steps
//!                             sums.json           length and CRC-32 of both
//! ```
//!
//! All random numbers follow from the seed and the step, so no generator state is stored. A checkpoint is complete or absent:
//! it is written under a name that begins with a dot, synced to the disk, and renamed.

mod files;
mod state;
mod tensors;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use calotype_tensor::io::Mmap;

use crate::error::Error;
use crate::stop;
use crate::trainer::Trainer;
use state::CheckpointState;

const FOLDER: &str = "checkpoints";
const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
/// The most bytes of `state.json`, which has a line for each tensor.
const MAX_STATE: u64 = 16 << 20;

/// Writes the checkpoint `run_dir/checkpoints/step-000200/` of a trainer that has done 200 steps, and returns its path. Of the
/// checkpoints up to this step, the newest `keep` are kept (at least this one), and the one with the lowest validation loss of a
/// training that may end before its last step. Those of later steps are not touched. An intact checkpoint of this training at this
/// step is not written again.
///
/// # Errors
/// A file cannot be written, read or removed; another training has a checkpoint at this step; or a weight is not finite.
/// Earlier checkpoints are kept.
pub fn save(run_dir: &Path, trainer: &Trainer, keep: usize) -> Result<PathBuf, Error> {
    if !trainer.is_finite() {
        return Err(Error::Diverged { step: trainer.steps_done() });
    }
    let folder = run_dir.join(FOLDER);
    let (step, path) = (trainer.steps_done(), folder.join(name(trainer.steps_done())));
    make_folder(run_dir, &folder).map_err(at(&folder))?;
    for leftover in leftovers(&folder).map_err(at(&folder))? {
        fs::remove_dir_all(&leftover).map_err(at(&leftover))?;
    }
    let whole = match Found::open(&path) {
        Ok(found) => {
            let state = found.state(trainer)?;
            state.validations == trainer.validations() && found.tensors(trainer).is_ok()
        }
        Err(_) => false,
    };
    if !whole {
        write(&folder, &path, trainer)?;
    }
    let best = stop::best(trainer.validations()).map(|(step, _)| step);
    remove_older(&folder, step, best, keep.max(1)).map_err(at(&folder))?;
    Ok(path)
}

/// Restores a trainer of the same plan from the newest intact checkpoint of `run_dir`, and returns its step. Damaged
/// checkpoints are skipped with a warning. `None`: there is no intact checkpoint, and the trainer is unchanged.
///
/// # Errors
/// The folder cannot be read, or the checkpoint belongs to another training: its plan (except `checkpointing_steps`, the place
/// of the set and the number of steps), examples, model, dtype, or the names and shapes of its parameters differ. The trainer
/// is unchanged, unless a file of the checkpoint changes while it is read.
pub fn restore(run_dir: &Path, trainer: &mut Trainer) -> Result<Option<usize>, Error> {
    let folder = run_dir.join(FOLDER);
    for (step, path) in list(&folder).map_err(at(&folder))?.into_iter().rev() {
        let problem = match Found::open(&path) {
            Ok(found) => {
                let state = found.state(trainer)?;
                match found.tensors(trainer) {
                    Ok(tensors) => {
                        found.fill(step, &state, &tensors, trainer)?;
                        return Ok(Some(step));
                    }
                    Err(problem) => problem,
                }
            }
            Err(problem) => problem,
        };
        tracing::warn!("{}: damaged, passed over: {problem}", path.display());
    }
    Ok(None)
}

/// Restores a trainer of the same plan from the checkpoint of `run_dir` at this step. False: there is no such checkpoint, or it is
/// damaged, and the trainer is unchanged.
///
/// # Errors
/// As [`restore`].
pub fn restore_at(run_dir: &Path, step: usize, trainer: &mut Trainer) -> Result<bool, Error> {
    let path = run_dir.join(FOLDER).join(name(step));
    let Ok(found) = Found::open(&path) else { return Ok(false) };
    let state = found.state(trainer)?;
    let Ok(tensors) = found.tensors(trainer) else { return Ok(false) };
    found.fill(step, &state, &tensors, trainer).map(|()| true)
}

/// The step of the newest checkpoint of `run_dir`, from which a training most likely resumes. `None`: there is no checkpoint.
pub fn newest(run_dir: &Path) -> Option<usize> {
    list(&run_dir.join(FOLDER)).ok()?.last().map(|(step, _)| *step)
}

/// A checkpoint whose `state.json` is intact.
struct Found<'a> {
    path: &'a Path,
    sums: files::Sums,
    state: Mmap,
}

impl<'a> Found<'a> {
    /// Opens a checkpoint. The text of an error lacks the checkpoint's path.
    fn open(path: &'a Path) -> Result<Self, String> {
        let sums = files::Sums::read(path)?;
        let state = sums.open(path, STATE, MAX_STATE)?;
        Ok(Self { path, sums, state })
    }

    /// The state, if it belongs to the trainer's training.
    fn state(&self, trainer: &Trainer) -> Result<CheckpointState, Error> {
        let state = CheckpointState::parse(&self.path.join(STATE), &self.state)?;
        state.check_training(self.path, trainer)?;
        Ok(state)
    }

    /// The tensors' file, if it is intact.
    fn tensors(&self, trainer: &Trainer) -> Result<Mmap, String> {
        self.sums.open(self.path, TENSORS, tensors::most_bytes(trainer))
    }

    fn fill(
        &self,
        step: usize,
        state: &CheckpointState,
        tensors: &Mmap,
        trainer: &mut Trainer,
    ) -> Result<(), Error> {
        state.check_steps(&self.path.join(STATE), step, trainer)?;
        state.warn_of_isa(self.path);
        let located = tensors::locate(&self.path.join(TENSORS), tensors, trainer)?;
        trainer.resume(step, state.validations.clone(), |trained| {
            trained.state.step = state.optimizer_steps.get(&trained.name).copied().unwrap_or_default();
            tensors::fill(tensors, &located, trained);
        });
        match tensors.is_unchanged() {
            true => Ok(()),
            false => Err(at(self.path)(io::Error::other(format!("{TENSORS}: changed while it was read")))),
        }
    }
}

/// Writes a checkpoint. It may replace a damaged one.
fn write(folder: &Path, path: &Path, trainer: &Trainer) -> Result<(), Error> {
    let partial = folder.join(format!(".{}.partial", name(trainer.steps_done())));
    let state = CheckpointState::of(path, trainer)?;
    let written = || -> io::Result<()> {
        fs::create_dir(&partial)?;
        let mut sums = files::Sums::default();
        sums.write(&partial, TENSORS, |to| tensors::write(to, trainer))?;
        sums.write(&partial, STATE, |to| state.write(to))?;
        sums.finish(&partial)?;
        if path.exists() {
            discard(path)?;
        }
        fs::rename(&partial, path)?;
        files::sync_folder(folder)
    };
    written().map_err(|source| {
        // Frees the room on the disk, which may have been the cause. The next save would do so too.
        let _ = fs::remove_dir_all(&partial);
        at(path)(source)
    })
}

fn make_folder(run_dir: &Path, folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        files::sync_folder(run_dir)?;
    }
    Ok(())
}

fn name(step: usize) -> String {
    format!("step-{step:06}")
}

/// The checkpoints of a folder, oldest first.
fn list(folder: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let step_of = |path: &Path| -> Option<usize> {
        let found = path.file_name()?.to_str()?;
        let step = found.strip_prefix("step-")?.parse().ok()?;
        (found == name(step)).then_some(step)
    };
    let mut all: Vec<_> =
        paths(folder)?.into_iter().filter_map(|p| step_of(&p).map(|step| (step, p))).collect();
    all.sort();
    Ok(all)
}

/// The partial folders of saves that were killed.
fn leftovers(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let ours = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".step-"))
    };
    Ok(paths(folder)?.into_iter().filter(ours).collect())
}

/// The paths in a folder; empty if the folder does not exist.
fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Removes all checkpoints up to `step` except the newest `keep` and the `best`. A checkpoint with files of the wrong length is
/// removed and not counted.
fn remove_older(folder: &Path, step: usize, best: Option<usize>, keep: usize) -> io::Result<()> {
    let all = list(folder)?.into_iter();
    let older = all.filter(|(s, _)| *s <= step && (*s == step || Some(*s) != best)).map(|(_, path)| path);
    let (whole, damaged): (Vec<_>, Vec<_>) = older.partition(|path| files::Sums::lengths_fit(path));
    let surplus = whole.len().saturating_sub(keep);
    damaged.iter().chain(&whole[..surplus]).try_for_each(|path| discard(path))
}

/// Removes a checkpoint. It, too, is complete or absent.
fn discard(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let old = path.with_file_name(format!(".{name}.old"));
    fs::rename(path, &old)?;
    fs::remove_dir_all(&old)
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { path: path.to_path_buf(), source }
}
