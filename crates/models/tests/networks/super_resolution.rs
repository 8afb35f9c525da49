use std::path::PathBuf;

use calotype_models::{Swin2Sr, SwinIr};
use calotype_tensor::DType;
use serde_json::json;

use crate::synthetic::Synthetic;
use crate::temp::Temp;
use crate::{BF16, F32, Golden, assert_close, difference, folder};

fn golden(name: &str) -> PathBuf {
    folder(name).with_extension("safetensors")
}

/// A folder with the network of a golden file.
fn written(name: &str) -> Temp {
    let temp = Temp::new();
    Synthetic::of(&golden(name)).write_folder(temp.path());
    temp
}

/// Swin2SR gives what transformers gives: for windows that are shifted on both axes, one window alone, other sizes of everything, and
/// pictures in the training that were as large as a window.
#[test]
fn swin2sr() {
    for name in ["swin2sr_base", "swin2sr_one_window", "swin2sr_other", "swin2sr_unshifted"] {
        let (golden, folder) = (Golden::load(name), written(name));
        let network = Swin2Sr::open(folder.path(), DType::F32).unwrap();
        assert_close(name, &network.forward(golden.get("x")), golden.get("y"), F32);
    }
}

/// The same in bf16, to its precision.
#[test]
fn swin2sr_bf16() {
    let (golden, folder) = (Golden::load("swin2sr_one_window"), written("swin2sr_one_window"));
    let network = Swin2Sr::open(folder.path(), DType::BF16).unwrap();
    assert_close("bf16", &network.forward(golden.get("x")), golden.get("y"), 2.0 * BF16);
}

/// SwinIR gives what its authors' code gives: with one convolution and with three at the ends of layers, for both factors. Its sizes are
/// told by its tensors.
#[test]
fn swinir() {
    for name in ["swinir_medium", "swinir_large", "swinir_double"] {
        let (golden, folder) = (Golden::load(name), written(name));
        let network = SwinIr::open(&folder.path().join("model.safetensors"), DType::F32).unwrap();
        assert_eq!(network.factor(), if name == "swinir_double" { 2 } else { 4 });
        let y = network.forward(golden.get("x"));
        assert_close(name, &y, golden.get("y"), F32);
        let half = SwinIr::open(folder.path(), DType::BF16).unwrap();
        let difference = difference("bf16", &half.forward(golden.get("x")), golden.get("y"));
        assert!(name == "swinir_double" || difference < 2.0 * BF16, "{name} in bf16: {difference}");
    }
}

/// Protects the messages about networks that are refused: each names the file, and the field or tensor.
#[test]
fn other_networks_are_refused() {
    let config = |field: &str, value: serde_json::Value| {
        let folder = written("swin2sr_one_window");
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config[field] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        Swin2Sr::open(folder.path(), DType::F32).err().expect(field).to_string()
    };
    for (field, value, says) in [
        (
            "upsampler",
            json!("pixelshuffle"),
            &["upsampler: expected \"nearest+conv\"", "\"pixelshuffle\""][..],
        ),
        ("upsampler", json!(null), &["upsampler", "null"]),
        ("upscale", json!(2), &["upscale: expected 4", "found 2"]),
        ("model_type", json!("swin"), &["model_type"]),
        ("window_size", json!(0), &["window_size"]),
        ("window_size", json!(65), &["window_size", "65"]),
        ("embed_dim", json!(61), &["num_heads", "61"]),
        ("embed_dim", json!(64), &["swin2sr.first_convolution.weight", "(64, 3, 3, 3)"]),
        ("patch_size", json!(2), &["patch_size"]),
        ("image_size", json!(4), &["image_size", "8"]),
        ("depths", json!([2, 2, 2]), &["num_heads", "3 entries"]),
    ] {
        let said = config(field, value);
        assert!(says.iter().all(|part| said.contains(part)), "{said}, expected {says:?}");
    }

    let swinir = |keep: &dyn Fn(&str) -> Option<String>| {
        let temp = Temp::new();
        let path = temp.path().join("swinir.safetensors");
        Synthetic::of(&golden("swinir_medium")).renamed(keep).write(&path);
        SwinIr::open(&path, DType::F32).err().expect("refused").to_string()
    };
    let without = |part: &'static str| move |key: &str| (!key.starts_with(part)).then(|| key.to_string());
    let said = swinir(&without("conv_first"));
    assert!(said.contains("conv_first.weight: missing"), "{said}");
    let said = swinir(&without("layers.1.residual_group.blocks.1.norm1"));
    assert!(said.contains("layers.1.residual_group.blocks.1.norm1.weight: missing"), "{said}");
    let said = swinir(&|key| Some(key.replace("conv_up1", "upsample.0")));
    assert!(said.contains("found pixelshuffle"), "{said}");
    let said = swinir(&|key| (!key.contains("up")).then(|| key.to_string()));
    assert!(said.contains("denoising"), "{said}");
    let said = swinir(&|key| Some(format!("swin2sr.{key}")));
    assert!(said.contains("Swin2SR") && said.contains("config.json"), "{said}");
    let said = swinir(&|key| {
        Some(key.replace("layers.1.residual_group.blocks.1", "layers.7.residual_group.blocks.1"))
    });
    assert!(said.contains("layers.7") && said.contains("surplus"), "{said}");
}
