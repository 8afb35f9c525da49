//! Predictions: requests → PNG files, with a model that stays open.
//!
//! A request's pictures depend on the request alone. What stays from one to the next are the open model, its VAE, and its UNets with the
//! trained weights of the last requests, which are known by their files ([`warmth`]).

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use calotype_request::PredictInput;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{Image, Preview};
use calotype_sdxl::plan::{check_mask, check_size};
use calotype_sdxl::safety::Safety;
use calotype_serve::engine::{EngineError, Predicted, Progress, Stop, Work};
use calotype_tensor::cpu::Workers;
use image::imageops;
use serde_json::{Map, Value};

use super::engine_error;
use super::warmth::{Cooled, Warmth};
use crate::failure::Failure;
use crate::log::Warnings;
use crate::predictor::{Predictor, PredictorArgs};
use crate::progress::{self, Pace};
use crate::{picture, pocket, safety};

/// The longest side of a preview, in pixels.
const PREVIEW_SIDE: u32 = 256;

/// Makes pictures, one request at a time for each model that is open.
pub struct Predictions {
    args: PredictorArgs,
    /// A preview is made after so many steps of a picture. 0: none.
    preview_every: usize,
    preview_vae: Option<PathBuf>,
    /// What stays in memory between requests.
    warmth: Warmth,
    /// The side of a latent in pixels, once the model was open.
    scale: OnceLock<usize>,
    /// The side of the pictures that the model was trained on, once the model was open.
    native: OnceLock<Option<usize>>,
    /// The models that are open, and that no request uses now: one for each request at a time.
    warm: Mutex<Vec<Warm>>,
}

/// A model that is open, with threads and memory of its own.
struct Warm {
    workers: Workers,
    /// `None` before the first request, and after one that could not be undone.
    predictor: Option<Predictor>,
    /// The safety checker, once a request has asked for it.
    safety: Option<Option<Safety>>,
}

/// A model in use, which goes back when this is dropped, but for a panic.
struct Taken<'a> {
    warm: Option<Warm>,
    back: &'a Mutex<Vec<Warm>>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(warm) = self.warm.take().filter(|_| !std::thread::panicking()) {
            self.back.lock().unwrap_or_else(PoisonError::into_inner).push(warm);
        }
    }
}

impl Predictions {
    pub fn new(
        args: PredictorArgs,
        preview_every: usize,
        preview_vae: Option<PathBuf>,
        warmth: Warmth,
    ) -> Predictions {
        let (scale, native, warm) = Default::default();
        Predictions { args, preview_every, preview_vae, warmth, scale, native, warm }
    }

    /// The model's name or path, as the user gave it.
    pub fn model(&self) -> String {
        let given = self.args.model.model.as_deref();
        given.unwrap_or(Path::new(pocket::NAME)).to_string_lossy().into_owned()
    }

    /// The side of the pictures that the model was trained on, in pixels. `None`: not known, or the model was not open yet.
    pub fn native_size(&self) -> Option<usize> {
        let known = self.native.get().copied().flatten();
        known.or_else(|| (self.model() == pocket::NAME).then_some(pocket::SIDE))
    }

    /// Opens the model, unless it is open.
    ///
    /// # Errors
    /// The model cannot be opened.
    pub fn set_up(&self) -> Result<(), Failure> {
        let mut taken = self.take()?;
        let Some(warm) = &mut taken.warm else { return Ok(()) };
        let workers = warm.workers.clone();
        workers.run(|| self.open(warm).map(drop))
    }

    /// Closes the models that no request uses: a training begins, which needs memory. The next request opens its model again. Until the
    /// result is dropped, no more than the last request's network stays.
    pub fn cool(&self) -> Cooled<'_> {
        let cooled = self.warmth.cool();
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).clear();
        cooled
    }

    /// Checks a request as far as that takes no file and no network.
    ///
    /// # Errors
    /// A field is wrong for the model.
    pub fn check(&self, request: &PredictInput, given: &Map<String, Value>) -> Result<(), Failure> {
        check_mask(request.mask.is_some(), request.image.is_some())?;
        // A side that is not given is the model's own.
        if let Some(scale) = self.scale.get() {
            for (name, side) in [("width", request.width), ("height", request.height)] {
                if given.contains_key(name) {
                    check_size(name, side, *scale)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the pictures of a request, and writes them as `out-0.png` and so on into `folder`.
    ///
    /// # Errors
    /// The request is wrong, the computation fails, or `work` stops it.
    pub fn predict(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Predicted, EngineError> {
        let schema = PredictInput::command_line_schema();
        let mut taken = self.take().map_err(|failure| engine_error(failure, &schema, &[]))?;
        let Some(warm) = &mut taken.warm else { return Err(EngineError::Failed("no model".into())) };
        let workers = warm.workers.clone();
        let warnings = Warnings::default();
        let made = workers.run(|| {
            warnings.of(|| {
                let plan = self.args.plan(input).map_err(|failure| engine_error(failure, &schema, &[]))?;
                let files: Vec<(&str, &Path)> =
                    plan.replicate_weights.iter().map(|file| ("replicate_weights", file.as_path())).collect();
                let job = Job { input, folder, work, warnings: &warnings };
                let made = self.pictures(warm, plan.clone(), &job);
                made.map_err(|failure| engine_error(failure, &schema, &files))
            })
        });
        warnings.take().iter().for_each(|line| work.log(line));
        if warm.predictor.as_ref().is_some_and(|predictor| self.warmth.is_exceeded(&predictor.pipeline)) {
            (warm.predictor, warm.safety) = (None, None);
        }
        made
    }

    /// A model that no other request uses.
    fn take(&self) -> Result<Taken<'_>, Failure> {
        let free = self.warm.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let warm = match free {
            Some(warm) => warm,
            None => {
                let threads = self.args.threads.unwrap_or(0);
                let workers = Workers::new(threads.into());
                let workers = workers.map_err(|e| Failure::Failed(format!("--threads {threads}: {e}")))?;
                Warm { workers, predictor: None, safety: None }
            }
        };
        Ok(Taken { warm: Some(warm), back: &self.warm })
    }

    /// The model, which is opened if it is not.
    fn open<'a>(&self, warm: &'a mut Warm) -> Result<&'a Predictor, Failure> {
        let predictor = match warm.predictor.take() {
            Some(predictor) => predictor,
            None => {
                let predictor = Predictor::open(self.args.clone(), &self.args.model.paths(true)?)?;
                match &self.preview_vae {
                    Some(given) => predictor.with_preview_vae(given, true)?,
                    None => predictor,
                }
            }
        };
        // The same each time.
        let _ = self.scale.set(predictor.latent_scale);
        let _ = self.native.set(predictor.pipeline.native_size());
        Ok(warm.predictor.insert(predictor))
    }

    fn pictures(&self, warm: &mut Warm, plan: PredictPlan, job: &Job) -> Result<Predicted, Failure> {
        // Refused before the model is taken apart.
        self.open(warm)?.refiner_for(&plan)?;
        if let Some(predictor) = warm.predictor.take() {
            warm.predictor = Some(predictor.with_refiner_for(&plan, true)?);
        }
        let Warm { predictor: Some(predictor), safety, .. } = warm else {
            return Err(Failure::Failed("no model".into()));
        };
        let plan = predictor.settled(plan, job.input)?;
        let disabled = job.input.get("disable_safety_checker").and_then(Value::as_bool) == Some(true);
        if safety.is_none() && !disabled {
            *safety = Some(predictor.safety(false, true)?);
        }
        let checker = safety.as_ref().and_then(Option::as_ref).filter(|_| !disabled);
        job.work.log(&format!("Using seed: {}", plan.seed));
        let images = self.sample(predictor, &plan, job)?;
        predictor.without_watermark(&plan, job.input, &images).inspect(|line| job.work.log(line));
        let mut pictures = Vec::new();
        for (i, (image, reason)) in images.iter().zip(safety::reasons(checker, &images)).enumerate() {
            pictures.push(match reason {
                Some(reason) => {
                    job.work.log(&format!("picture {} (seed {}) is kept back: {reason}", i + 1, image.seed));
                    None
                }
                None => Some(write(predictor, image, &plan, &job.folder.join(format!("out-{i}.png")))?),
            });
        }
        let mut metrics = Map::new();
        metrics.insert("image_count".into(), pictures.iter().flatten().count().into());
        Ok(Predicted { pictures, metrics })
    }

    fn sample(&self, predictor: &Predictor, plan: &PredictPlan, job: &Job) -> Result<Vec<Image>, Failure> {
        let mut steps = Steps { work: job.work, pace: Pace::start(0), done: 0, shown: None };
        self.warmth.limit(&predictor.pipeline);
        let images = predictor.pipeline.predict(plan, &mut |step| {
            job.warnings.take().iter().for_each(|line| job.work.log(line));
            steps.step(step.step, step.steps);
            if let Some(preview) = &step.preview
                && preview.step.checked_rem(self.preview_every) == Some(0)
            {
                small_png(preview).into_iter().for_each(|png| job.work.preview(preview.picture, &png));
            }
            match job.work.stop() {
                Some(Stop::Cancel) => ControlFlow::Break(()),
                // A prediction goes on to its end.
                Some(Stop::Drain) | None => ControlFlow::Continue(()),
            }
        });
        Ok(images?)
    }
}

/// A request that is being computed.
struct Job<'a> {
    input: &'a Map<String, Value>,
    folder: &'a Path,
    work: &'a dyn Work,
    warnings: &'a Warnings,
}

/// The steps of a request, as they are told.
struct Steps<'a> {
    work: &'a dyn Work,
    pace: Pace,
    done: usize,
    /// The step of the last line.
    shown: Option<usize>,
}

impl Steps<'_> {
    fn step(&mut self, done: usize, total: usize) {
        if done == 0 {
            self.pace = Pace::start(0);
        } else if done != self.done {
            self.done = done;
            let (timing, left) = self.pace.now(done, total);
            if progress::is_due(self.shown, done, total) {
                self.shown = Some(done);
                self.work.log(&progress::line(done, total, &timing));
            }
            let (stage, seconds_left, losses) = ("sampling".into(), Some(left), Vec::new());
            self.work.progress(Progress { stage, done, total, seconds_left, losses });
        }
    }
}

/// Writes a picture, and returns its path.
fn write(predictor: &Predictor, image: &Image, plan: &PredictPlan, path: &Path) -> Result<PathBuf, Failure> {
    let file = File::create(path);
    let written = file.and_then(|file| predictor.write_png(file, image, plan));
    written.map_err(|e| Failure::io(path, &e))?;
    Ok(path.into())
}

/// A small picture of a preview. `None`: it cannot be encoded, which harms nothing.
fn small_png(preview: &Preview) -> Option<Vec<u8>> {
    let image = preview.decode();
    let (width, height) = image.dimensions();
    let longest = width.max(height).max(1);
    let image = match longest > PREVIEW_SIDE {
        true => {
            let side = |side: u32| (side * PREVIEW_SIDE / longest).max(1);
            imageops::thumbnail(&image, side(width), side(height))
        }
        false => image,
    };
    let mut png = Vec::new();
    let size = (image.width() as usize, image.height() as usize);
    picture::write_png(&mut png, size, image.as_raw(), &[]).ok()?;
    Some(png)
}
