//! The captioner, the segmenter and the upscaler that go with the pocket model, against transformers
//! (`tools/reference/golden/pocket_preprocessing.py`).

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::fs;
use std::path::{Path, PathBuf};

use calotype_tensor::DType;
use calotype_train::preprocess::{CaptionDecoding, Captioner, Segmenter, Upscaler};
use image::RgbImage;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use temp::golden;

const NAMES: [&str; 3] = ["fox", "octopus", "mascot"];

fn network(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket").join(name)
}

/// The golden file: its bytes.
struct Golden(Vec<u8>);

impl Golden {
    fn load() -> Golden {
        Golden(fs::read(golden().join("pocket_preprocessing.safetensors")).unwrap())
    }

    /// The shape and the bytes of a tensor.
    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap();
        (view.shape().to_vec(), view.data().to_vec())
    }

    fn picture(&self, name: &str) -> RgbImage {
        let (shape, bytes) = self.tensor(name);
        RgbImage::from_raw(shape[1] as u32, shape[0] as u32, bytes).unwrap()
    }

    fn text(&self, name: &str) -> String {
        let (_, metadata): (_, Metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        metadata.metadata().as_ref().unwrap()[name].clone()
    }
}

/// The largest difference of two rows of bytes.
fn apart(found: &[u8], want: &[u8]) -> u8 {
    assert_eq!(found.len(), want.len());
    found.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default()
}

/// Protects the captioner of pocket: the likeliest captions are those of transformers.
#[test]
fn captions() {
    let golden = Golden::load();
    let captioner = Captioner::open(&network("captioner"), DType::F32).unwrap();
    for name in NAMES {
        let picture = golden.picture(&format!("{name}.picture"));
        let found = captioner.caption(&picture, CaptionDecoding::Greedy, 0).unwrap();
        assert_eq!(found, golden.text(&format!("{name}.caption")), "{name}");
    }
}

/// Protects the segmenter of pocket: masks and probabilities are those that follow from the logits of transformers, for things that
/// are there and for others.
#[test]
fn masks() {
    let golden = Golden::load();
    let segmenter = Segmenter::open(&network("segmenter"), DType::F32).unwrap();
    for name in NAMES {
        let picture = golden.picture(&format!("{name}.picture"));
        let [there, absent] = ["prompt", "absent"].map(|which| {
            let prompt = segmenter.prompt(&golden.text(&format!("{name}.{which}"))).unwrap();
            segmenter.segment(&picture, &prompt, 1.0).unwrap()
        });
        let (_, want) = golden.tensor(&format!("{name}.largest"));
        for (found, want) in [&there, &absent].iter().zip(want.as_chunks().0) {
            let want = f32::from_le_bytes(*want);
            assert!((found.largest - want).abs() < 1e-3, "{name}: {} {want}", found.largest);
        }
        assert_eq!(there.mask.dimensions(), picture.dimensions());
        let apart = apart(there.mask.as_raw(), &golden.tensor(&format!("{name}.mask")).1);
        assert!(apart <= 2, "{name}: {apart}");
    }
}

/// Protects the upscaler of pocket: enlarged pictures are those of transformers.
#[test]
fn enlarged() {
    let golden = Golden::load();
    let upscaler = Upscaler::open(&network("upscaler"), DType::F32).unwrap();
    let found = upscaler.upscale(&golden.picture("small.picture")).unwrap();
    let want = golden.picture("small.upscaled");
    assert_eq!(found.dimensions(), want.dimensions());
    let apart = apart(found.as_raw(), want.as_raw());
    assert!(apart <= 1, "{apart}");
}
