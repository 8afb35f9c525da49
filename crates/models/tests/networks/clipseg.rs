use std::path::Path;

use calotype_models::ClipSeg;
use calotype_models::config::ClipSegConfig;
use calotype_tensor::{DType, ops};

use crate::{Golden, assert_close, folder};

/// What results may differ by, relative to the largest value. In bf16, the logits of these random weights, which lie near 0, differ by
/// 0.18 in transformers and 0.27 here.
const F32: f32 = 1e-4;
const BF16: f32 = 0.4;

fn check(name: &str, dtype: DType, tolerance: f32) {
    let (golden, folder) = (Golden::load(name), folder(name));
    let pictures = golden.get("pictures");
    let config = ClipSegConfig::read(&folder).unwrap();
    let net = ClipSeg::open(&folder, &config, pictures.dim(1), dtype).unwrap();
    let ids = golden.get("ids");
    let ids: Vec<Vec<u32>> =
        ids.to_vec().chunks(ids.dim(1)).map(|prompt| prompt.iter().map(|&id| id as u32).collect()).collect();
    let prompts = net.prompts(&ids);
    assert_close("prompts", &prompts.to_dtype(DType::F32), golden.get("prompts"), tolerance);
    for i in 0..2 {
        let seen = net.see(&ops::slice_batch(pictures, i, 1));
        let logits = net.logits(&seen, &ops::slice_batch(&prompts, i, 1));
        let want = ops::slice_batch(golden.get("logits"), i, 1);
        assert_close("logits", &logits, &want.reshape(logits.shape()), tolerance);
    }
}

/// Protects masks by prompt: prompts and logits are those of transformers, with interpolated positions and three convolutions.
#[test]
fn logits() {
    check("clipseg", DType::F32, F32);
}

/// The same for a network that ends with one convolution and takes the prompt later, and for patches that do not divide the picture.
#[test]
fn logits_of_one_convolution() {
    check("clipseg_simple", DType::F32, F32);
}

/// The same in bf16.
#[test]
fn logits_in_bf16() {
    check("clipseg", DType::BF16, BF16);
    check("clipseg_simple", DType::BF16, BF16);
}

/// Protects memory: layers after the last one that the decoder needs are not loaded.
#[test]
fn layers_that_are_not_needed() {
    let config = ClipSegConfig::read(&folder("clipseg")).unwrap();
    let net = ClipSeg::open(&folder("clipseg"), &config, 64, DType::F32).unwrap();
    assert_eq!((config.vision.num_hidden_layers, net.vision_model.layers.len()), (5, 4));
}

/// Protects users who give another model, or a broken one: one line that names the file and the field.
#[test]
fn other_models_are_refused() {
    let original = std::fs::read_to_string(folder("clipseg").join("config.json")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clipseg_refused");
    std::fs::create_dir_all(&target).unwrap();
    for (from, to, problem) in [
        (
            "CLIPSegForImageSegmentation",
            "CLIPSegModel",
            "architectures: expected CLIPSegForImageSegmentation, found CLIPSegModel",
        ),
        (
            "\"model_type\": \"clipseg_text_model\"",
            "\"model_type\": \"clip_text_model\"",
            "text_config.model_type: expected",
        ),
        (
            "\"patch_size\": 16",
            "\"patch_size\": 2",
            "use_complex_transposed_convolution: expected false, or a patch_size",
        ),
        (
            "\"reduce_dim\": 12",
            "\"reduce_dim\": 13",
            "decoder_num_attention_heads: expected a number of heads that divides 13",
        ),
        ("    3\n  ]", "    5\n  ]", "extract_layers: expected numbers below 5"),
        ("\"image_size\": 32", "\"image_size\": 0", "vision_config.image_size: expected 1 to 4096, found 0"),
        (
            "\"num_hidden_layers\": 5",
            "\"num_hidden_layers\": -5",
            "vision_config.num_hidden_layers: invalid value",
        ),
    ] {
        assert!(original.contains(from), "{from} in {original}");
        std::fs::write(target.join("config.json"), original.replace(from, to)).unwrap();
        let found = ClipSegConfig::read(&target).expect_err(to).to_string();
        assert!(found.contains(problem) && found.lines().count() == 1, "{found}");
    }
    // Without a class, the type of the model is enough.
    std::fs::write(target.join("config.json"), original.replace("\"architectures\": [", "\"x\": [")).unwrap();
    ClipSegConfig::read(&target).unwrap();
}
