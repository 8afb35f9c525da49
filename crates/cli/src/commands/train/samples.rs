//! Pictures made on the way, with what was learnt so far.

use std::fs;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use calotype_sdxl::Error;
use calotype_sdxl::adapters::TrainedWeights;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_sdxl::request::{PredictInput, PredictPlan};

use super::record::Record;
use crate::failure::Failure;
use crate::{interrupt, output, picture};

/// Makes `samples/step-000200-1.png` and so on, a picture for each prompt, picture i with the seed i.
///
/// The weights go through a file, into a model of its own beside the one that trains.
///
/// # Errors
/// A file cannot be written. A picture that cannot be made is a warning: the training is worth more.
pub fn make(trained: &TrainedWeights, record: &Record, dir: &Path, step: usize) -> Result<(), Failure> {
    let folder = dir.join("samples");
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
        Err(Error::Interrupted) => return Ok(()),
        Err(e) => {
            tracing::warn!("no samples of step {step}: {e}");
            return Ok(());
        }
    };
    for (i, (image, prompt)) in images.iter().zip(&record.sample_prompts).enumerate() {
        let path = folder.join(format!("step-{step:06}-{}.png", i + 1));
        let (size, texts) = ((image.width, image.height), [("parameters", prompt.clone())]);
        output::write_file(&path, |to| picture::write_png(to, size, &image.rgb, &texts))?;
    }
    Ok(())
}

fn pictures(record: &Record, trained: &Path) -> Result<Vec<Image>, Error> {
    let options =
        Options { dtype: record.dtype.into(), rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let pipeline = Pipeline::open(&record.model, options)?;
    let mut images = Vec::new();
    for (i, prompt) in record.sample_prompts.iter().enumerate() {
        let plan = PredictPlan {
            prompt: prompt.clone(),
            width: record.plan.resolution,
            height: record.plan.resolution,
            steps: record.sample_steps,
            lora_scale: 1.0,
            replicate_weights: vec![trained.into()],
            seed: i as u64 + 1,
            ..PredictPlan::new(PredictInput::default())
        };
        images.extend(pipeline.predict(&plan, &mut |_| match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?);
    }
    Ok(images)
}
