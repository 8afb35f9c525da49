//! Trains a LoRA on a folder of pictures: `cargo run --release --example train_lora -- models/pocket photos trained_model.tar`.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::Path;

use calotype_models::ModelFolder;
use calotype_tensor::DType;
use calotype_train::dataset::{Dataset, DatasetOptions};
use calotype_train::{TrainPlan, Trainer, TrainerOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, photos, file] = args.as_slice() else { return Err("expected MODEL PHOTOS FILE.tar".into()) };
    let plan = TrainPlan {
        input_images: photos.into(),
        resolution: 128,
        train_batch_size: 1,
        steps: 20,
        seed: 1,
        lr: 1e-3,
        ..TrainPlan::default()
    }
    .checked()?;
    let settings = DatasetOptions {
        resolution: plan.resolution,
        file_type: plan.input_images_filetype,
        token_string: &plan.token_string,
        caption_prefix: &plan.caption_prefix,
        crop_based_on_salience: plan.crop_based_on_salience,
    };
    let words = |caption: &str| caption.split_whitespace().count() + 2;
    let set = Dataset::open(Path::new(photos), &settings, &words, &mut |_, _| ControlFlow::Continue(()))?;
    eprint!("{}", set.report());

    let folder = ModelFolder::open(Path::new(model))?;
    let options = TrainerOptions { dtype: DType::F32, recompute: false };
    let steps = plan.steps;
    let mut trainer =
        Trainer::new(&folder, plan, &set.examples, options, &mut |_| ControlFlow::Continue(()))?;
    for _ in 0..steps {
        let step = trainer.step()?;
        eprintln!("step {}: loss {:.4}", step.step + 1, step.loss);
    }
    trainer.trained_weights().to_tar()?.write(&mut BufWriter::new(File::create(file)?))?;
    Ok(())
}
