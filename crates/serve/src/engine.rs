//! What the service wants of the program that computes: the binary fills in [`Engine`].
//!
//! The functions block, for seconds or hours. The service calls them on threads of their own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Computes predictions, trainings and preparations.
pub trait Engine: Send + Sync + 'static {
    /// The model's name or path, as the user gave it: `pocket`, a folder, a hub name.
    fn model(&self) -> String;

    /// The side of the square pictures that the model was trained on, in pixels. `None`: not known, or not yet.
    fn native_size(&self) -> Option<usize> {
        None
    }

    /// Loads what every prediction needs. A worker calls this function before it takes its first job.
    ///
    /// # Errors
    /// The model cannot be loaded.
    fn set_up(&self) -> Result<(), EngineError>;

    /// Checks the fields of a prediction without loading anything.
    ///
    /// # Errors
    /// [`EngineError::Input`]: a field is wrong for this model, such as a size or a sampler.
    fn check_prediction(&self, input: &Map<String, Value>) -> Result<(), EngineError>;

    /// Checks the fields of a training without loading anything.
    ///
    /// # Errors
    /// [`EngineError::Input`]: a field is wrong for this model.
    fn check_training(&self, input: &Map<String, Value>) -> Result<(), EngineError>;

    /// Makes pictures, and writes them into `folder`, which is empty.
    ///
    /// The bytes depend on `input` alone: not on requests before, and not on others at the same time.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn predict(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Predicted, EngineError>;

    /// Trains in the run folder `folder`. An empty folder starts a training; one with a run in it is resumed, and ends with
    /// the same bytes.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Trained, EngineError>;

    /// Makes the set of the training with this input in `folder`, which is empty, and says what the training will take.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn prepare(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Prepared, EngineError>;
}

/// What the engine tells while it computes, and asks.
pub trait Work: Sync {
    /// A line for the job's log.
    fn log(&self, line: &str);
    /// How far the job is.
    fn progress(&self, progress: Progress);
    /// A picture on the way, as PNG: of a prediction the picture `index` as it is going to be, of a training a sample.
    fn preview(&self, index: usize, png: &[u8]);
    /// The run folder of a training has a new checkpoint. Returns when the checkpoint is stored, or its copying has failed.
    fn checkpoint(&self, folder: &Path);
    /// Whether to stop now, and why. Engines ask at least at every step.
    fn stop(&self) -> Option<Stop>;
    /// Whether a training or a preparation is to rest while others compute, which somebody waits for.
    fn is_paused(&self) -> bool;
}

/// Why a job is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The job was canceled, or another worker has it. A training leaves a checkpoint, from which it can be resumed.
    Cancel,
    /// The worker ends. A training leaves a checkpoint; a prediction goes on to its end; a preparation is begun anew elsewhere.
    Drain,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The present part: `loading`, `sampling`, `preprocessing`, `training`, …
    pub stage: String,
    /// Steps done of `total`.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// The time that is left, in seconds, where it is known.
    pub seconds_left: Option<f64>,
    /// The training loss after each of the steps so far, thinned out to some hundreds: `[step, loss]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<(usize, f64)>,
}

/// The pictures of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// The files in the folder, by number of the picture. `None`: the safety checker kept the picture back.
    pub pictures: Vec<Option<PathBuf>>,
    /// Numbers for the job's metrics.
    pub metrics: Map<String, Value>,
}

/// The result of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// `trained_model.tar`.
    pub weights: PathBuf,
    /// Other files to keep, by name: the loss curve, the contact sheet, samples.
    pub files: Vec<PathBuf>,
    /// Numbers for the job's metrics.
    pub metrics: Map<String, Value>,
}

/// The result of a preparation.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The set as a zip file, which a training takes as it is: `pictures` with masks and captions beside them.
    pub set: PathBuf,
    /// The pictures side by side, as PNG.
    pub contact_sheet: PathBuf,
    /// The pictures, in the order of the set.
    pub pictures: Vec<PreparedPicture>,
    /// What a user should know of the set before a training, one line each.
    pub warnings: Vec<String>,
    /// What the training will take.
    pub forecast: Forecast,
    /// Numbers for the job's metrics.
    pub metrics: Map<String, Value>,
}

/// A picture of a prepared set.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedPicture {
    /// The picture's path in the set.
    pub name: String,
    /// The picture as the training sees it, as PNG.
    pub picture: PathBuf,
    /// What of the picture counts, as PNG. `None`: all of it.
    pub mask: Option<PathBuf>,
    /// The caption.
    pub caption: String,
    /// Width and height of the original, in pixels.
    pub size: [usize; 2],
    /// Whether a network has enlarged the picture.
    pub upscaled: bool,
    /// What a user should know of the picture, one line each.
    pub warnings: Vec<String>,
}

/// What a training will take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The steps.
    pub steps: Option<usize>,
    /// The time, in seconds.
    pub seconds: Option<f64>,
    /// The most memory, in bytes.
    pub bytes: Option<u64>,
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request is wrong.
    #[error("{field}: {problem}")]
    Input {
        /// The field of the input.
        field: String,
        /// What is wrong, in one line.
        problem: String,
    },
    /// The computation failed.
    #[error("{0}")]
    Failed(String),
    /// [`Work::stop`] said so.
    #[error("stopped: {0:?}")]
    Stopped(Stop),
}
