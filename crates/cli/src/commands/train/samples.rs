//! Pictures made on the way, with what was learnt so far.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use calotype_sdxl::Error;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::TrainedWeights;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};

use super::record::Record;
use super::run_dir::{CHECKPOINTS, SAMPLES};
use crate::failure::Failure;
use crate::infotext::{self, Maker};
use crate::{interrupt, output, picture};

/// Makes `samples/step-000200-1.png` and so on, a picture for each prompt, picture i with the seed i.
///
/// The weights go through a file, into a model of its own beside the one that trains. False where a signal cut it short:
/// none is written then.
///
/// # Errors
/// A file cannot be written. A picture that cannot be made is a warning: the training is worth more.
pub fn make(trained: &TrainedWeights, record: &Record, dir: &Path, step: usize) -> Result<bool, Failure> {
    let folder = dir.join(SAMPLES);
    let failed = |e: std::io::Error| Failure::Failed(format!("{}: {e}", folder.display()));
    fs::create_dir_all(&folder).map_err(failed)?;
    let file = tempfile::Builder::new().prefix(output::TEMPORARY).suffix(".tar").tempfile_in(&folder);
    let mut file = file.map_err(failed)?;
    let tar = trained.to_tar().map_err(|e| Failure::Failed(e.to_string()))?;
    let mut to = BufWriter::new(file.as_file_mut());
    tar.write(&mut to).and_then(|()| to.flush()).map_err(failed)?;
    drop(to);
    let images = match pictures(record, file.path()) {
        Ok(images) => images,
        Err(Error::Interrupted) => return Ok(false),
        Err(e) => {
            tracing::warn!("no samples of step {step}: {e}");
            return Ok(true);
        }
    };
    for (i, image) in images.iter().enumerate() {
        let path = path(dir, step, i);
        let (size, texts) = ((image.width, image.height), texts(record, dir, step, i));
        output::write_file(&path, |to| picture::write_png(to, size, &image.rgb, &texts))?;
    }
    Ok(true)
}

/// Whether all of a step's pictures are there.
pub fn are_made(record: &Record, dir: &Path, step: usize) -> bool {
    (0..record.sample_prompts.len()).all(|i| path(dir, step, i).exists())
}

fn path(dir: &Path, step: usize, i: usize) -> PathBuf {
    dir.join(SAMPLES).join(format!("step-{step:06}-{}.png", i + 1))
}

fn pictures(record: &Record, trained: &Path) -> Result<Vec<Image>, Error> {
    let options =
        Options { dtype: record.dtype.into(), rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let pipeline = Pipeline::open(&record.model, options)?;
    let mut images = Vec::new();
    for i in 0..record.sample_prompts.len() {
        images.extend(pipeline.predict(&plan(record, i, trained), &mut |_| interrupt::flow())?);
    }
    Ok(images)
}

/// The request of picture `i`.
fn plan(record: &Record, i: usize, trained: &Path) -> PredictPlan {
    PredictPlan {
        prompt: record.sample_prompts.get(i).cloned().unwrap_or_default(),
        width: record.plan.resolution,
        height: record.plan.resolution,
        steps: record.sample_steps,
        lora_scale: 1.0,
        replicate_weights: vec![trained.into()],
        seed: i as u64 + 1,
        ..PredictPlan::default()
    }
}

/// What a picture says of itself, as every picture does: its weights are those of the checkpoint after its step.
fn texts(record: &Record, dir: &Path, step: usize, i: usize) -> [(&'static str, String); 2] {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let maker = Maker {
        model: name(&record.model),
        dtype: record.dtype.into(),
        rng: "cpu",
        empty_negative: "encode",
    };
    let checkpoint = Path::new(&name(dir)).join(CHECKPOINTS).join(format!("step-{step:06}"));
    let plan = plan(record, i, &checkpoint);
    [
        ("parameters", infotext::automatic1111(&plan, plan.seed, &maker)),
        ("calotype", infotext::json(&plan, plan.seed, &maker)),
    ]
}
