//! What the command line shows of a run, and writes into its samples.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use calotype_train::run::{Observer, Sample};

use crate::infotext::{self, Maker};
use crate::progress::Progress;
use crate::{interrupt, picture};

/// The progress of a run.
pub struct Console {
    pub progress: Progress,
    /// The model's name.
    pub model: String,
}

impl Console {
    pub fn new(progress: Progress, model: &Path) -> Console {
        let model = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Console { progress, model }
    }
}

impl Observer for Console {
    fn on_step(&mut self, done: usize, steps: usize, loss: f64) {
        self.progress.step_with(done, steps, &format!(" loss {loss:.4}"));
    }

    fn flow(&self) -> ControlFlow<()> {
        interrupt::flow()
    }

    /// With what every picture says of itself.
    fn write_sample(&self, to: &mut dyn Write, Sample { image, plan, options }: &Sample) -> io::Result<()> {
        let maker = Maker {
            model: self.model.clone(),
            dtype: options.dtype,
            rng: "cpu",
            empty_negative: "encode",
            refiner: None,
        };
        let texts = [
            ("parameters", infotext::automatic1111(plan, plan.seed, &maker)),
            ("calotype", infotext::json(plan, plan.seed, &maker)),
        ];
        picture::write_png(to, (image.width, image.height), &image.rgb, &texts)
    }
}
