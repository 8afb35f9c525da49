//! Whole pictures against those that diffusers makes from the same folder.

mod plan;
mod temp;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_sdxl::Error;
use calotype_sdxl::PredictPlan;
use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng, Step};
use calotype_sdxl::prompt::{LongPrompts, PromptSyntax};
use calotype_tensor::DType;
use safetensors::SafeTensors;
use serde_json::{Map, Value};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden").join(name)
}

fn open(dtype: DType, rng: Rng) -> Pipeline {
    Pipeline::open(&golden("pipeline"), Options { dtype, rng, empty_negative: EmptyNegative::Encode })
        .expect("the golden folder opens")
}

fn plan(request: Map<String, Value>) -> PredictPlan {
    // diffusers cuts long prompts off.
    let prompt_syntax = PromptSyntax { long: LongPrompts::Truncate, weights: false };
    PredictPlan { prompt_syntax, ..plan::plan(&request.into()) }
}

fn predict(pipeline: &Pipeline, plan: &PredictPlan) -> Vec<Image> {
    pipeline.predict(plan, &mut |_| ControlFlow::Continue(())).expect("pictures")
}

/// The golden requests, and the bytes of their two pictures each.
fn cases() -> Vec<(String, Map<String, Value>, Vec<u8>)> {
    let bytes = std::fs::read(golden("pipeline.safetensors")).expect("golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
    let metadata: HashMap<String, String> =
        header.metadata().clone().expect("metadata").into_iter().collect();
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    let case = |(name, request): (String, String)| {
        let images = file.tensor(&format!("{name}.images")).ok()?.data().to_vec();
        Some((name, serde_json::from_str(&request).ok()?, images))
    };
    let mut cases: Vec<_> = metadata.into_iter().filter_map(case).collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn small_plan(num_outputs: usize, seed: u64) -> PredictPlan {
    let request = serde_json::json!({
        "prompt": "a photo", "width": 32, "height": 24, "num_inference_steps": 2,
        "scheduler": "K_EULER_ANCESTRAL", "num_outputs": num_outputs, "seed": seed,
    });
    plan(request.as_object().expect("an object").clone())
}

/// Protects the product: every sampler's pictures, guidance, negative and long prompts, odd sizes and the second seed
/// of a batch are diffusers' own, within 1 of 255.
#[test]
fn pictures_equal_diffusers() {
    let pipeline = open(DType::F32, Rng::Cpu);
    let cases = cases();
    assert!(cases.len() >= 10, "{} cases", cases.len());
    for (name, mut request, want) in cases {
        request.insert("num_outputs".into(), 2.into());
        let images = predict(&pipeline, &plan(request));
        let found: Vec<u8> = images.into_iter().flat_map(|image| image.rgb).collect();
        assert_eq!(found.len(), want.len(), "{name}");
        let worst = found.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{name}: differs by {worst:?} of 255");
    }
}

/// Protects: a picture of a batch is the same picture alone, under its own seed, and in a fresh pipeline.
#[test]
fn a_batch_is_its_pictures() {
    let pipeline = open(DType::F32, Rng::Cpu);
    let batch = predict(&pipeline, &small_plan(3, 5));
    let alone = predict(&open(DType::F32, Rng::Cpu), &small_plan(1, 7));
    assert_eq!((batch[2].seed, &batch[2].rgb), (7, &alone[0].rgb));
    assert_ne!(batch[0].rgb, batch[1].rgb);
}

/// Protects: the same bytes for any number of threads.
#[test]
fn threads_do_not_matter() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| predict(&open(DType::F32, Rng::Cpu), &small_plan(1, 1)).remove(0).rgb)
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

/// Protects bf16: close to the f32 picture, and not the same computation.
#[test]
fn bf16_is_close() {
    let plan = small_plan(1, 3);
    let f32 = predict(&open(DType::F32, Rng::Cpu), &plan).remove(0).rgb;
    let bf16 = predict(&open(DType::BF16, Rng::Cpu), &plan).remove(0).rgb;
    let square = |(a, b): (&u8, &u8)| (*a as f64 - *b as f64).powi(2);
    let mse = f32.iter().zip(&bf16).map(square).sum::<f64>() / f32.len() as f64;
    let psnr = 10.0 * (255.0 * 255.0 / mse.max(1e-9)).log10();
    assert!((25.0..90.0).contains(&psnr), "{psnr} dB");
}

/// Protects `--rng cuda`: another generator, other pictures.
#[test]
fn generators_differ() {
    let plan = small_plan(1, 3);
    let cpu = predict(&open(DType::F32, Rng::Cpu), &plan).remove(0).rgb;
    let cuda = predict(&open(DType::F32, Rng::Cuda), &plan).remove(0).rgb;
    assert_ne!(cpu, cuda);
}

/// Protects stopping: no step is begun after the one at which the caller breaks, and every step is told once.
#[test]
fn stops_within_a_step() {
    let mut told = Vec::new();
    let result = open(DType::F32, Rng::Cpu).predict(&small_plan(2, 0), &mut |step: Step| {
        assert_eq!(step.steps, 4);
        told.push(step.step);
        if step.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Interrupted)));
    told.dedup();
    assert_eq!(told, [0, 1, 2, 3]);
}

/// Protects: a side that is no whole number of the model's latents is refused by name before anything is loaded, with what would
/// do: a VAE of five levels makes 16 pixels of a latent, one of three 4.
#[test]
fn sides_are_whole_latents() {
    let folder = |levels: usize| {
        let dir = temp::copy(&golden("pipeline"));
        let path = dir.path().join("vae/config.json");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a config")).expect("JSON");
        config["block_out_channels"] = vec![8; levels].into();
        config["down_block_types"] = vec!["DownEncoderBlock2D"; levels].into();
        config["up_block_types"] = vec!["UpDecoderBlock2D"; levels].into();
        dir.write("vae/config.json", config.to_string());
        dir
    };
    let refusal = |levels: usize, width: usize, height: usize| {
        let dir = folder(levels);
        let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
        let pipeline = Pipeline::open(dir.path(), options).expect("opens");
        let plan = PredictPlan { width, height, ..small_plan(1, 0) };
        pipeline
            .predict(&plan, &mut |_| ControlFlow::Continue(()))
            .map(drop)
            .expect_err("no weights")
            .to_string()
    };
    assert!(refusal(5, 1000, 64).starts_with("width: expected a multiple of 16 ("));
    assert!(refusal(5, 1000, 64).ends_with(", found 1000"));
    assert!(refusal(5, 64, 8).starts_with("height: expected a multiple of 16 ("));
    assert!(refusal(16, 1024, 64).starts_with("width: expected a multiple of 32768 ("));
    assert!(refusal(4, 0, 64).starts_with("width: expected a multiple of 8 ("));
    // Good sides come as far as the weights, which are of four levels.
    assert!(refusal(5, 992, 64).contains("safetensors: "));
    assert!(refusal(3, 1000, 8).contains("safetensors: "));
}
