//! Says what trained weights change in a model, and makes a picture with them merged in:
//! `cargo run --release --example merge -- models/pocket trained_model.tar "a photo of TOK" out.png`.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use calotype_models::ModelFolder;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::adapters::{Modules, TrainedWeights};
use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
use calotype_tensor::DType;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, trained, prompt, file] = args.as_slice() else {
        return Err("expected MODEL TRAINED PROMPT FILE.png".into());
    };
    let folder = ModelFolder::open(Path::new(model))?;
    let modules = Modules::of(&folder, &folder.configs()?)?;
    let weights = TrainedWeights::read(Path::new(trained), Some(&modules))?;
    eprintln!("LoRA of {} layers, {} whole tensors", weights.lora.len(), weights.unet.len());
    eprintln!("{} new tokens, for {:?}", weights.new_tokens(), weights.tokens.keys().collect::<Vec<_>>());

    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let pipeline = Pipeline::open(Path::new(model), options)?;
    let side = pipeline.native_size().unwrap_or(1024);
    let plan = PredictPlan {
        prompt: prompt.clone(),
        width: side,
        height: side,
        steps: 25,
        lora_scale: 0.8,
        replicate_weights: vec![trained.into()],
        seed: 1,
        ..PredictPlan::default()
    };
    let images = pipeline.predict(&plan, &mut |_| ControlFlow::Continue(()))?;
    let image = &images[0];
    image::save_buffer(file, &image.rgb, image.width as u32, image.height as u32, image::ColorType::Rgb8)?;
    Ok(())
}
