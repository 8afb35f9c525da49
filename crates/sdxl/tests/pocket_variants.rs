//! The pocket model changed in one thing each, against the pictures that diffusers 0.42 makes of it in f32 (`golden/pocket`):
//! 128 × 128 pixels, 6 steps of K_EULER, guidance 5, seed 3.

mod plan;
mod temp;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use calotype_sdxl::pipeline::{EmptyNegative, Options, Pipeline, Rng};
use calotype_tensor::DType;
use half::f16;
use plan::plan;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use temp::{Temp, copy, golden};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket")
}

/// Pixels of the golden request's picture.
fn picture(folder: &Path, empty_negative: EmptyNegative) -> Vec<u8> {
    let request = json!({
        "prompt": "a red fox in the snow", "seed": 3, "num_inference_steps": 6, "guidance_scale": 5,
        "width": 128, "height": 128,
    });
    let plan = plan(&request);
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative };
    let pipeline = Pipeline::open(folder, options).expect("a model folder");
    pipeline.predict(&plan, &mut |_| ControlFlow::Continue(())).expect("a picture").remove(0).rgb
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mse = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>() / a.len() as f64;
    10.0 * (255.0 * 255.0 / mse.max(1e-9)).log10()
}

fn assert_golden(name: &str, found: &[u8]) {
    let golden = image::open(golden().join("pocket").join(name)).expect("golden picture").to_rgb8();
    let psnr = psnr(found, golden.as_raw());
    assert!(psnr >= 50.0, "{name}: {psnr} dB");
}

/// Writes a file of f16 tensors anew: each as `change` gives it, or left out.
fn rewrite(
    dir: &Temp,
    file: &str,
    change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>,
    more: &[(&str, Vec<usize>)],
) {
    let bytes = std::fs::read(dir.path().join(file)).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let kept: Vec<(String, _, Vec<usize>, Vec<u8>)> = (tensors.tensors().into_iter())
        .filter_map(|(key, t)| {
            let data = change(&key, t.data().to_vec())?;
            Some((key, t.dtype(), t.shape().to_vec(), data))
        })
        .chain(more.iter().map(|(key, shape)| {
            let data = vec![0; 2 * shape.iter().product::<usize>()];
            (key.to_string(), safetensors::Dtype::F16, shape.clone(), data)
        }))
        .collect();
    let views = kept.iter().map(|(key, dtype, shape, data)| {
        (key, TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    dir.write(file, safetensors::serialize(views, None).expect("serialised"));
}

/// Sets a field of a JSON file.
fn set(dir: &Temp, file: &str, field: &str, value: Value) {
    let text = std::fs::read_to_string(dir.path().join(file)).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config[field] = value;
    dir.write(file, config.to_string());
}

/// Protects SSD-1B and its kind: a middle block of one ResNet (whose second convolution is made 64 times as strong, so that
/// it shows).
#[test]
fn plain_middle_block() {
    let dir = copy(&pocket());
    let strong = |data: Vec<u8>| {
        let values = data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
        values.flat_map(|x| (x * f16::from_f32(64.0)).to_le_bytes()).collect()
    };
    let change = |key: &str, data: Vec<u8>| match key {
        "mid_block.resnets.0.conv2.weight" => Some(strong(data)),
        _ if key.starts_with("mid_block.") && !key.starts_with("mid_block.resnets.0.") => None,
        _ => Some(data),
    };
    rewrite(&dir, UNET, change, &[]);
    set(&dir, "unet/config.json", "mid_block_type", json!("UNetMidBlock2D"));
    assert_golden("plain_middle_block.png", &picture(dir.path(), EmptyNegative::Encode));
}

/// Protects KOALA-700M and its kind: no middle block at all.
#[test]
fn no_middle_block() {
    let dir = copy(&pocket());
    rewrite(&dir, UNET, |key, data| (!key.starts_with("mid_block.")).then_some(data), &[]);
    set(&dir, "unet/config.json", "mid_block_type", json!(null));
    assert_golden("no_middle_block.png", &picture(dir.path(), EmptyNegative::Encode));
}

/// Protects: zeros for an empty negative prompt are what diffusers' pipeline gives where the model's
/// `force_zeros_for_empty_prompt` is true and no negative prompt is given; the encoded one is another picture.
#[test]
fn zeros_for_an_empty_negative_prompt() {
    let zeros = picture(&pocket(), EmptyNegative::Zeros);
    assert_golden("zeros.png", &zeros);
    assert!(psnr(&zeros, &picture(&pocket(), EmptyNegative::Encode)) < 40.0);
}

/// Protects: what tools leave in the first text encoder's file and no network uses changes nothing.
#[test]
fn surplus_of_a_whole_clip_model() {
    let dir = copy(&pocket());
    let more =
        [("text_projection.weight", vec![8, 8]), ("logit_scale", vec![]), ("vision_model.x.weight", vec![2])];
    rewrite(&dir, TEXT_ENCODER, |_, data| Some(data), &more);
    let found = picture(dir.path(), EmptyNegative::Encode);
    assert!(found == picture(&pocket(), EmptyNegative::Encode));
}

/// Protects previews: what the linear map shows is the picture without detail, and it comes nearer from step to step.
#[test]
fn a_preview_is_the_picture_without_detail() {
    let plan = plan(&json!({
        "prompt": "a red fox in the snow", "seed": 3, "num_inference_steps": 6, "width": 128, "height": 128,
    }));
    let options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };
    let pipeline = Pipeline::open(&pocket(), options).expect("a model folder");
    let mut previews = Vec::new();
    let made = pipeline.predict(&plan, &mut |step| {
        previews.extend(step.preview.map(|preview| preview.decode().into_raw()));
        ControlFlow::Continue(())
    });
    let picture = made.expect("a picture").remove(0).rgb;
    // Means of 8 × 8 pixels, and the pixel in the middle of each preview's.
    let small = |rgb: &[u8]| -> Vec<u8> {
        let mean = |i: usize| {
            let (y, x, c) = (i / 48 * 8, i % 48 / 3 * 8, i % 3);
            let sum: u32 = (0..64).map(|p| u32::from(rgb[((y + p / 8) * 128 + x + p % 8) * 3 + c])).sum();
            (sum / 64) as u8
        };
        (0..16 * 48).map(mean).collect()
    };
    let near: Vec<f64> = previews.iter().map(|preview| psnr(&small(preview), &small(&picture))).collect();
    assert!(near[5] > 20.0 && near[0] < near[2] && near[2] < near[5], "{near:?}");
}
