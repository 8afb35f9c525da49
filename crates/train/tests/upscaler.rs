//! Pictures become larger as transformers' network makes them, whatever their size.

#[path = "../../models/tests/synthetic/mod.rs"]
mod synthetic;
#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use calotype_tensor::DType;
use calotype_train::preprocess::{NotFinite, Upscaler};
use image::RgbImage;
use safetensors::SafeTensors;
use synthetic::Synthetic;
use temp::{Temp, golden};

/// A picture of a golden file.
fn picture(file: &SafeTensors, name: &str) -> RgbImage {
    let view = file.tensor(name).unwrap();
    let [height, width, _] = view.shape().try_into().unwrap();
    RgbImage::from_raw(width as u32, height as u32, view.data().to_vec()).unwrap()
}

/// A picture of 29 × 19 and one of 1 × 3, which are mirrored up to whole windows, and cut again; bytes may be rounded the other way.
#[test]
fn pictures_of_any_size() {
    for size in ["19x29", "3x1"] {
        let path = golden().join(format!("models/swin2sr_picture_{size}.safetensors"));
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let [small, want] = ["picture", "enlarged"].map(|name| picture(&file, name));
        let folder = Temp::new();
        Synthetic::of(&path).write_folder(folder.path());
        let upscaler = Upscaler::open(folder.path(), DType::F32).unwrap();
        assert_eq!(upscaler.factor(), 4);
        let found = upscaler.upscale(&small).unwrap();
        assert_eq!(found.dimensions(), want.dimensions());
        let worst = found.as_raw().iter().zip(want.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{size}: {worst:?}");
        assert_eq!(upscaler.upscale(&small).unwrap().as_raw(), found.as_raw(), "the same bytes again");
    }
}

/// Protects against damaged weights: pixels that are no numbers are refused.
#[test]
fn weights_that_are_no_numbers() {
    let folder = Temp::new();
    Synthetic::of(&golden().join("models/swin2sr_picture_3x1.safetensors")).write_folder(folder.path());
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0xff);
    std::fs::write(path, bytes).unwrap();
    let upscaler = Upscaler::open(folder.path(), DType::F32).unwrap();
    assert_eq!(upscaler.upscale(&RgbImage::new(5, 3)), Err(NotFinite));
}

/// SwinIR's file and folder are told from Swin2SR's; a folder with neither says what it lacks.
#[test]
fn networks_are_told_apart() {
    let folder = Temp::new();
    let said = Upscaler::open(folder.path(), DType::F32).err().expect("an empty folder").to_string();
    assert!(said.contains("no weights: expected model.safetensors or pytorch_model.bin"), "{said}");
    Synthetic::of(&golden().join("models/swinir_double.safetensors")).write_folder(folder.path());
    let small = RgbImage::from_pixel(5, 3, image::Rgb([90, 120, 40]));
    for path in [folder.path().join("model.safetensors"), folder.path().to_path_buf()] {
        let upscaler = Upscaler::open(&path, DType::F32).unwrap();
        assert_eq!(upscaler.factor(), 2);
        assert_eq!(upscaler.upscale(&small).unwrap().dimensions(), (10, 6));
    }
}
