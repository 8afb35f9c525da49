//! Captions and masks by prompt, from a picture to words or to a mask, against transformers (`tools/reference/golden/captioner.py` and
//! `segmenter.py`).

#[path = "../../sdxl/tests/temp/mod.rs"]
mod temp;

use std::path::{Path, PathBuf};

use calotype_tensor::DType;
use calotype_train::preprocess::{CaptionDecoding, Captioner, NotFinite, Segmenter};
use image::{GrayImage, RgbImage};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorView};
use temp::Temp;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/models").join(name)
}

/// A golden file: its bytes.
struct Golden(Vec<u8>);

impl Golden {
    fn load(name: &str) -> Golden {
        Golden(std::fs::read(folder(name).with_extension("safetensors")).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn text(&self, name: &str) -> String {
        let (_, metadata): (_, Metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        metadata.metadata().as_ref().unwrap()[name].clone()
    }

    /// The sizes of the pictures, by their names.
    fn sizes(&self) -> Vec<String> {
        let tensors = self.tensors();
        let mut sizes: Vec<String> =
            tensors.names().iter().filter_map(|name| name.strip_prefix("image.")).map(String::from).collect();
        sizes.sort();
        sizes
    }

    fn picture(&self, size: &str) -> RgbImage {
        let tensors = self.tensors();
        let view = tensors.tensor(&format!("image.{size}")).unwrap();
        RgbImage::from_raw(view.shape()[1] as u32, view.shape()[0] as u32, view.data().to_vec()).unwrap()
    }

    fn tokens(&self, name: &str) -> Vec<u32> {
        let tensors = self.tensors();
        let words = tensors.tensor(name).unwrap();
        words.data().as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
    }
}

fn captioner(path: &Path) -> Captioner {
    Captioner::open(path, DType::F32).unwrap()
}

/// A copy of a golden folder.
fn copy(of: &str) -> Temp {
    let target = Temp::new();
    for entry in std::fs::read_dir(folder(of)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
    }
    target
}

/// Protects captions: for pictures of any shape, the tokens of the greedy text and of the beam search are those of transformers, and so
/// are their texts.
#[test]
fn captions_are_those_of_transformers() {
    let (golden, captioner) = (Golden::load("blip"), captioner(&folder("blip")));
    for size in golden.sizes() {
        let picture = golden.picture(&size);
        for (name, decoding) in [("greedy", CaptionDecoding::Greedy), ("beam", CaptionDecoding::Beam)] {
            let tokens = captioner.tokens(&picture, decoding, 0).unwrap();
            assert_eq!(tokens, golden.tokens(&format!("{name}.{size}")), "{name} {size}");
            assert_eq!(captioner.text(&tokens), golden.text(&format!("{name}.{size}")), "{name} {size}");
        }
    }
}

/// Protects the seed: a sampled caption depends on the picture and the seed alone, and differs between seeds.
#[test]
fn a_seed_is_a_caption() {
    let (golden, first, second) =
        (Golden::load("blip"), captioner(&folder("blip")), captioner(&folder("blip")));
    let (picture, other) = (golden.picture("64x50"), golden.picture("30x70"));
    let sample = |captioner: &Captioner, picture, seed| {
        captioner.caption(picture, CaptionDecoding::Sample, seed).unwrap()
    };
    let seeds = [1, 2, 3, 4, 5, 6, 7, 1 << 32, 1 << 33, u64::MAX];
    let captions: Vec<String> = seeds.iter().map(|&seed| sample(&first, &picture, seed)).collect();
    let different: std::collections::BTreeSet<&String> = captions.iter().collect();
    assert!(different.len() > seeds.len() / 2, "{captions:?}");
    for (&seed, caption) in seeds.iter().zip(&captions).rev() {
        sample(&second, &other, seed);
        assert_eq!(&sample(&second, &picture, seed), caption);
    }
}

/// Protects folders of transformers 5: the vocabulary in `tokenizer.json` alone, the image processor in `processor_config.json`.
#[test]
fn other_files_of_the_same() {
    let folder = copy("blip");
    let [vocabulary, old, new] = ["vocab.txt", "preprocessor_config.json", "processor_config.json"]
        .map(|name| folder.path().join(name));
    std::fs::remove_file(vocabulary).unwrap();
    let processor = std::fs::read_to_string(&old).unwrap();
    std::fs::remove_file(old).unwrap();
    std::fs::write(new, format!("{{\"image_processor\": {processor}}}")).unwrap();
    let (golden, captioner) = (Golden::load("blip"), captioner(folder.path()));
    let tokens = captioner.tokens(&golden.picture("64x50"), CaptionDecoding::Greedy, 0).unwrap();
    assert_eq!(captioner.text(&tokens), golden.text("greedy.64x50"));
}

/// Protects masks by prompt: for pictures of any shape, the mask and the largest probability are those of the published rule on
/// transformers' logits.
#[test]
fn masks_are_those_of_transformers() {
    for name in ["clipseg", "clipseg_simple"] {
        let golden = Golden::load(name);
        let segmenter = Segmenter::open(&folder(name), DType::F32).unwrap();
        let prompt = segmenter.prompt(&golden.text("prompt")).unwrap();
        for size in golden.sizes() {
            let temperature = golden.text("temperature").parse().unwrap();
            let found = segmenter.segment(&golden.picture(&size), &prompt, temperature).unwrap();
            let tensors = golden.tensors();
            let value = |view: TensorView| f32::from_le_bytes(view.data().try_into().unwrap());
            let largest = value(tensors.tensor(&format!("largest.{size}")).unwrap());
            assert!((found.largest - largest).abs() < 1e-4, "{name} {size}: {} {largest}", found.largest);
            let want = tensors.tensor(&format!("mask.{size}")).unwrap();
            let want = want.data();
            let apart = found.mask.as_raw().iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(found.mask.len() == want.len() && apart <= Some(1), "{name} {size}: {apart:?}");
        }
    }
}

/// Protects long prompts: what the network would not read is an error that names the words.
#[test]
fn a_prompt_that_is_cut_off_is_refused() {
    let segmenter = Segmenter::open(&folder("clipseg"), DType::F32).unwrap();
    let long = format!("{} cinematic rainbow", "a ".repeat(74));
    let found = segmenter.prompt(&long).err().expect("a refusal").to_string();
    let problem = "mask_target_prompts: expected at most 77 tokens (the segmenter would not read \"rainbow\"), found 78 tokens";
    assert_eq!(found, problem);
    segmenter.prompt(&"a ".repeat(75)).unwrap();
}

/// Protects against odd pictures: one pixel, one column, one colour. The mask has the picture's size.
#[test]
fn odd_pictures() {
    let captioner = captioner(&folder("blip"));
    let segmenter = Segmenter::open(&folder("clipseg"), DType::F32).unwrap();
    let prompt = segmenter.prompt("a red fox").unwrap();
    for (width, height, shade) in [(1, 1, 0), (1, 4000, 255), (4000, 1, 9), (64, 64, 128)] {
        let picture = RgbImage::from_pixel(width, height, image::Rgb([shade; 3]));
        for decoding in [CaptionDecoding::Sample, CaptionDecoding::Greedy, CaptionDecoding::Beam] {
            captioner.caption(&picture, decoding, 7).unwrap();
        }
        let found = segmenter.segment(&picture, &prompt, 1.0).unwrap();
        assert_eq!(GrayImage::dimensions(&found.mask), (width, height));
        assert!(found.largest > 0.0 && found.largest <= 1.0);
    }
}

/// Protects against damaged weights: what is no number is no caption and no mask.
#[test]
fn weights_that_are_no_numbers() {
    let broken = |name: &str| {
        let folder = copy(name);
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[header..].fill(0xff);
        std::fs::write(path, bytes).unwrap();
        folder
    };
    let picture = RgbImage::from_pixel(40, 30, image::Rgb([90, 40, 200]));
    let (blip, clipseg) = (broken("blip"), broken("clipseg"));
    let captioner = captioner(blip.path());
    for decoding in [CaptionDecoding::Sample, CaptionDecoding::Greedy, CaptionDecoding::Beam] {
        assert_eq!(captioner.caption(&picture, decoding, 7), Err(NotFinite));
    }
    let segmenter = Segmenter::open(clipseg.path(), DType::F32).unwrap();
    let prompt = segmenter.prompt("a red fox").unwrap();
    assert_eq!(segmenter.segment(&picture, &prompt, 1.0), Err(NotFinite));
}

/// What becomes of a file's text; `None`: there is no such file.
type Change<'a> = &'a dyn Fn(String) -> Option<String>;

/// Protects users who give another model's folder, or one with a file missing or broken: one line that names the file and the field.
#[test]
fn folders_that_are_refused() {
    let refusal = |of: &str, file: &str, change: Change| {
        let folder = copy(of);
        let path = folder.path().join(file);
        match change(std::fs::read_to_string(&path).unwrap()) {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        match of {
            "blip" => Captioner::open(folder.path(), DType::F32).err(),
            _ => Segmenter::open(folder.path(), DType::F32).err(),
        }
        .unwrap_or_else(|| panic!("{of} was opened with another {file}"))
        .to_string()
    };
    let becomes = |from: &'static str, to: &'static str| {
        move |text: String| {
            assert!(text.contains(from), "{from} in {text}");
            Some(text.replace(from, to))
        }
    };
    let blip: [(&str, Change, &str); 6] = [
        ("preprocessor_config.json", &becomes("48", "384"), "size: expected 48 × 48"),
        ("preprocessor_config.json", &becomes("0.26862954", "0"), "image_std: expected numbers other than 0"),
        ("preprocessor_config.json", &becomes("\"resample\": 3", "\"resample\": 0"), "resample: expected 1"),
        (
            "preprocessor_config.json",
            &becomes("\"do_pad\"", "\"do_center_crop\""),
            "do_center_crop: expected false",
        ),
        ("config.json", &|_| Some("[]".into()), "expected a JSON object"),
        (
            "config.json",
            &becomes("\"hidden_size\": 32", "\"hidden_size\": 40"),
            "expected (1, 1, 40), found (1, 1, 32)",
        ),
    ];
    for (file, change, problem) in blip {
        let found = refusal("blip", file, change);
        assert!(found.contains(problem) && found.lines().count() == 1, "{found}");
    }
    let clipseg: [(&str, Change, &str); 3] = [
        ("preprocessor_config.json", &becomes("64", "9"), "size: expected a square of 16 to"),
        ("merges.txt", &|_| None, "merges.txt"),
        ("vocab.json", &becomes("633", "99999"), "99999"),
    ];
    for (file, change, problem) in clipseg {
        let found = refusal("clipseg", file, change);
        assert!(found.contains(problem) && found.lines().count() == 1, "{found}");
    }
    let other = Captioner::open(&folder("clipseg"), DType::F32).err().unwrap().to_string();
    assert!(
        other.ends_with("expected BlipForConditionalGeneration, found CLIPSegForImageSegmentation"),
        "{other}"
    );
    let other = Segmenter::open(&folder("blip"), DType::F32).err().unwrap().to_string();
    assert!(
        other.ends_with("expected CLIPSegForImageSegmentation, found BlipForConditionalGeneration"),
        "{other}"
    );
    let none = copy("blip");
    for file in ["vocab.txt", "tokenizer.json"] {
        std::fs::remove_file(none.path().join(file)).unwrap();
    }
    let none = Captioner::open(none.path(), DType::F32).err().unwrap().to_string();
    assert!(none.contains("no vocabulary: expected vocab.txt or tokenizer.json"), "{none}");
}
