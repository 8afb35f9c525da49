//! Stands in for `calotype_sdxl`'s pipeline until that is merged; then this file goes.
#![allow(dead_code)]

use std::ops::ControlFlow;
use std::path::Path;

use calotype_sdxl::request::PredictPlan;

#[derive(Debug)]
pub enum Error {
    BadInput(String),
    Interrupted,
    Other(String),
}

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::BadInput(_) => 2,
            Error::Interrupted => 130,
            Error::Other(_) => 1,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::BadInput(what) | Error::Other(what) => f.write_str(what),
            Error::Interrupted => f.write_str("interrupted"),
        }
    }
}

pub struct Options {
    pub dtype: calotype_tensor::DType,
    pub rng: Rng,
}

pub enum Rng {
    Cpu,
    Cuda,
}

pub struct Step {
    pub step: usize,
    pub steps: usize,
}

pub struct Image {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
    pub seed: u64,
}

pub struct Pipeline;

impl Pipeline {
    pub fn open(folder: &Path, _options: Options) -> Result<Pipeline, Error> {
        let index = folder.join("model_index.json");
        match index.is_file() {
            true => Ok(Pipeline),
            false => Err(Error::BadInput(format!("{}: no such file", index.display()))),
        }
    }

    pub fn predict(
        &self,
        plan: &PredictPlan,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Vec<Image>, Error> {
        if std::env::var_os("CALOTYPE_STUB").is_none() {
            return Err(Error::Other("the pipeline is not built yet".into()));
        }
        let steps = plan.steps * plan.num_outputs;
        for step in 1..=steps {
            std::thread::sleep(std::time::Duration::from_millis(50));
            if on_step(Step { step, steps }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        let picture = |i: usize| {
            let seed = plan.image_seed(i);
            let rgb = (0..plan.width * plan.height * 3).map(|v| (v as u64 ^ seed) as u8).collect();
            Image { width: plan.width, height: plan.height, rgb, seed }
        };
        Ok((0..plan.num_outputs).map(picture).collect())
    }
}
