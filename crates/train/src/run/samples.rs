//! Pictures made on the way, with what was learnt so far.

use std::fs;
use std::path::{Path, PathBuf};

use calotype_models::{ModelFolder, ModelPaths};
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::TrainedWeights;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_tensor::DType;

use super::dir::{CHECKPOINTS, SAMPLES};
use super::observer::{Observer, Sample};
use crate::error::Error;
use crate::files;

/// The pictures of a run.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Steps between them, at least 1.
    pub every: usize,
    /// A prompt for each picture. Picture i has the seed i + 1.
    pub prompts: Vec<String>,
    /// Denoising steps.
    pub steps: usize,
    /// Width and height, in pixels.
    pub side: usize,
    /// The model's files.
    pub model: ModelPaths,
    /// Of the networks.
    pub dtype: DType,
}

impl Samples {
    /// Makes `samples/step-000200-1.png` and so on, a picture for each prompt; `observer` writes them.
    ///
    /// The weights go through a file, into a model of its own beside the one that trains. False where `observer` stops the run: no picture is
    /// written then.
    ///
    /// # Errors
    /// A file cannot be written. A picture that cannot be made is a warning: the training is worth more.
    pub(super) fn make(
        &self,
        trained: &TrainedWeights,
        dir: &Path,
        step: usize,
        observer: &mut dyn Observer,
    ) -> Result<bool, Error> {
        let folder = dir.join(SAMPLES);
        let failed = |source| Error::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let file = tempfile::Builder::new().prefix(files::TEMPORARY).suffix(".tar").tempfile_in(&folder);
        let file = file.map_err(failed)?;
        let tar = trained.to_tar()?;
        files::write_buffered(file.as_file(), |to| tar.write(to)).map_err(failed)?;
        let images = match self.pictures(file.path(), observer) {
            Ok(images) => images,
            Err(calotype_sdxl::Error::Interrupted) => return Ok(false),
            Err(e) => {
                tracing::warn!("no samples of step {step}: {e}");
                return Ok(true);
            }
        };
        let run = dir.file_name().unwrap_or_default();
        let checkpoint = Path::new(run).join(CHECKPOINTS).join(format!("step-{step:06}"));
        for (i, image) in images.iter().enumerate() {
            let path = path(dir, step, i);
            let sample = Sample { image, plan: &self.plan(i, &checkpoint), options: self.options() };
            files::write_file(&path, |to| observer.write_sample(to, &sample))
                .map_err(|source| Error::Io { path, source })?;
        }
        Ok(true)
    }

    /// Whether all of a step's pictures are there.
    pub(super) fn are_made(&self, dir: &Path, step: usize) -> bool {
        (0..self.prompts.len()).all(|i| path(dir, step, i).exists())
    }

    fn pictures(
        &self,
        trained: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Image>, calotype_sdxl::Error> {
        let pipeline = Pipeline::of(
            ModelFolder::open_paths(&self.model).map_err(calotype_sdxl::Error::from)?,
            self.options(),
        )?;
        let mut images = Vec::new();
        for i in 0..self.prompts.len() {
            images.extend(pipeline.predict(&self.plan(i, trained), &mut |_| observer.flow())?);
        }
        Ok(images)
    }

    fn options(&self) -> Options {
        Options { dtype: self.dtype, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode }
    }

    fn plan(&self, i: usize, trained: &Path) -> PredictPlan {
        PredictPlan {
            prompt: self.prompts.get(i).cloned().unwrap_or_default(),
            width: self.side,
            height: self.side,
            steps: self.steps,
            lora_scale: 1.0,
            replicate_weights: vec![trained.into()],
            // Samples are for whoever watches the training.
            apply_watermark: false,
            seed: i as u64 + 1,
            ..PredictPlan::default()
        }
    }
}

fn path(dir: &Path, step: usize, i: usize) -> PathBuf {
    dir.join(SAMPLES).join(format!("step-{step:06}-{}.png", i + 1))
}
