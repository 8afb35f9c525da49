//! Makes a picture and writes it as PNG: `cargo run --release --example predict -- models/pocket "a red fox in the snow" fox.png`.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
use calotype_tensor::DType;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt, file] = args.as_slice() else { return Err("expected MODEL PROMPT FILE.png".into()) };
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let pipeline = Pipeline::open(Path::new(model), options)?;
    let side = pipeline.native_size().unwrap_or(1024);
    let plan = PredictPlan {
        prompt: prompt.clone(),
        width: side,
        height: side,
        steps: 25,
        seed: 1,
        ..PredictPlan::default()
    };
    let images = pipeline.predict(&plan, &mut |step| {
        eprintln!("{} of {} steps", step.step, step.steps);
        ControlFlow::Continue(())
    })?;
    let image = &images[0];
    let size = (image.width as u32, image.height as u32);
    image::save_buffer(file, &image.rgb, size.0, size.1, image::ColorType::Rgb8)?;
    Ok(())
}
