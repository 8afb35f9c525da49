//! `calotype predict` with a picture, a mask and a refiner, on the committed tiny models.

mod common;

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use common::{Ended, Sandbox, tiny_model};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden").join(name)
}

/// A PNG of `width` × `height` pixels with `channels` bytes each.
fn png(width: u32, height: u32, color: png::ColorType, pixel: impl Fn(u32, u32) -> Vec<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    let mut writer = encoder.write_header().expect("a header");
    let pixels: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    writer.write_image_data(&pixels).expect("pixels");
    writer.finish().expect("written");
    file
}

fn photo(width: u32, height: u32) -> Vec<u8> {
    png(width, height, png::ColorType::Rgb, |x, y| vec![(3 * x) as u8, (5 * y) as u8, (x * y) as u8])
}

/// White from column `from` on.
fn mask(width: u32, height: u32, from: u32) -> Vec<u8> {
    png(width, height, png::ColorType::Grayscale, |x, _| vec![if x >= from { 255 } else { 0 }])
}

/// The size and the RGB pixels of a PNG, and the text that tells its request.
fn decoded(file: &[u8]) -> ((u32, u32), Vec<u8>, String) {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("all pixels");
    let info = reader.info();
    let texts = &info.uncompressed_latin1_text;
    let text = texts.iter().find(|text| text.keyword == "calotype").expect("a text");
    ((info.width, info.height), pixels, text.text.clone())
}

/// A small request; `more` comes behind it.
fn args(more: &[&str]) -> Vec<String> {
    let model = tiny_model();
    let first = ["predict", "--model", model.to_str().expect("text"), "--num-inference-steps", "4"];
    let all = first.iter().chain(&["--prompt", "a cat", "--seed", "1"]).chain(more);
    all.map(|arg| (*arg).to_owned()).collect()
}

fn predict(here: &Sandbox, more: &[&str]) -> Ended {
    let args = args(more);
    here.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn picture(here: &Sandbox, ended: &Ended) -> ((u32, u32), Vec<u8>, String) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    decoded(&fs::read(here.path(ended.stdout.trim_end())).expect("a picture"))
}

fn assert_refused(here: &Sandbox, more: &[&str], says: &str) {
    let args = args(more);
    here.assert_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
}

/// Protects the size of pictures from pictures: their own, rounded down; the given one; the aspect ratio, if one side is given. The
/// request in the picture has no folder.
#[test]
fn sizes_follow_the_picture() {
    let here = Sandbox::new();
    here.write("my/photo.png", photo(70, 51));
    let size = |more: &[&str]| {
        let ended = predict(&here, &[&["-q", "-i", "image=@my/photo.png"][..], more].concat());
        let (size, _, text) = picture(&here, &ended);
        assert!(
            text.contains(r#""image":"photo.png""#) && text.contains(r#""prompt_strength":0.8"#),
            "{text}"
        );
        size
    };
    assert_eq!(size(&[]), (64, 48));
    assert_eq!(size(&["--width", "32", "--height", "40"]), (32, 40));
    assert_eq!(size(&["--width", "136"]), (136, 96));
}

/// Protects pictures in a request's text, and steps: the strength's share of them are made.
#[test]
fn data_and_strength() {
    let here = Sandbox::new();
    // A grey PNG of 8 × 8 pixels.
    let uri = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5CYII=";
    let ended = predict(&here, &["--image", uri, "--prompt-strength", "0.5"]);
    assert_eq!(picture(&here, &ended).0, (8, 8));
    assert!(ended.stderr.contains("2/2"), "{}", ended.stderr);
}

/// Protects inpainting: preserved pixels are the picture's, byte for byte, and masks may have any size of the same aspect ratio.
#[test]
fn preserved_pixels_stay() {
    let here = Sandbox::new();
    let photo = photo(64, 48);
    here.write("photo.png", &photo);
    here.write("mask.png", mask(128, 96, 64));
    let ended = predict(&here, &["-q", "--image", "photo.png", "--mask", "@mask.png"]);
    let (size, pixels, text) = picture(&here, &ended);
    assert!(text.contains(r#""mask":"mask.png""#), "{text}");
    let mut reader = png::Decoder::new(Cursor::new(&photo)).read_info().expect("a PNG");
    let mut own = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut own).expect("all pixels");
    assert_eq!(size, (64, 48));
    for (i, (found, own)) in pixels.chunks(3).zip(own.chunks(3)).enumerate() {
        assert!(i % 64 >= 32 || found == own, "pixel {i}");
    }
    assert_ne!(pixels, own);
}

/// Protects the refiner: both ways, named in the picture. Settings without an effect are told.
#[test]
fn refined() {
    let here = Sandbox::new();
    let refiner = golden("refiner");
    let refiner = ["--refiner", refiner.to_str().expect("text"), "--width", "64", "--height", "48"];
    let made = |more: &[&str]| {
        let ended = predict(&here, &[&refiner[..], more].concat());
        (picture(&here, &ended), ended.stderr)
    };
    let (plain, said) = made(&["--refine-steps", "9", "--prompt-strength", "0.5"]);
    for no_effect in ["--refiner: no effect", "refine_steps: no effect", "prompt_strength: no effect"] {
        assert!(said.contains(no_effect), "{said}");
    }
    let (expert, said) = made(&["--refine", "expert_ensemble_refiner", "--high-noise-frac", "0.5"]);
    assert!(expert.2.contains(r#""refiner":"refiner""#) && !said.contains("no effect"), "{said}");
    let (again, _) = made(&["--refine", "base_image_refiner", "--refine-steps", "9"]);
    assert!(plain.1 != expert.1 && plain.1 != again.1 && expert.1 != again.1);
}

/// Protects against pictures, masks and strengths that cannot be used: each is refused by name.
#[test]
fn bad_pictures() {
    let here = Sandbox::new();
    here.write("photo.png", photo(64, 48));
    here.write("small.png", photo(64, 7));
    here.write("black.png", mask(64, 48, 64));
    here.write("square.png", mask(64, 64, 0));
    here.write("text.png", "no picture");
    here.write("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0");
    here.write("cut.png", &photo(64, 48)[..200]);
    let mut huge = photo(64, 48);
    huge[16..24].copy_from_slice(&[0, 0, 0x23, 0x28, 0, 0, 0x23, 0x28]); // 9000 × 9000
    let mut crc = flate2::Crc::new();
    crc.update(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    here.write("huge.png", &huge);
    let photo = ["--image", "photo.png"];
    assert_refused(&here, &["--mask", "black.png"], "image: expected the picture that the mask is for");
    assert_refused(&here, &[&photo[..], &["--mask", "black.png"]].concat(), "mask: expected white");
    assert_refused(
        &here,
        &[&photo[..], &["--mask", "square.png"]].concat(),
        "mask: expected the aspect ratio",
    );
    assert_refused(&here, &[&photo[..], &["--mask", "text.png"]].concat(), "mask: text.png: ");
    assert_refused(&here, &[&photo[..], &["--prompt-strength", "0.2"]].concat(), "0.25");
    assert_refused(&here, &[&photo[..], &["--prompt-strength", "1.5"]].concat(), "prompt_strength: expected");
    // The built-in model is not blamed for a request's fault.
    let ended = here.run(&["predict", "--image", "photo.png", "--prompt-strength", "0.001", "-o", "out"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("prompt_strength"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("the model is pocket"), "{}", ended.stderr);
    for (image, says) in [
        ("small.png", "image: expected a picture"),
        ("text.png", "image: text.png: "),
        ("photo.heic", "HEIC is not read"),
        ("cut.png", "image: cut.png: "),
        ("huge.png", "image: huge.png: expected at most 64000000 pixels, found 9000 × 9000"),
        ("nothing.png", "image: nothing.png: "),
        (".", "directory"),
        ("https://example.org/a.png", "fetch the picture first"),
        ("data:image/png,abc", "expected base64"),
    ] {
        assert_refused(&here, &["--image", image], says);
    }
    assert_refused(&here, &["-i", "image=@nothing.png"], "image: nothing.png: ");
}

/// Protects against models in the wrong place.
#[test]
fn bad_refiners() {
    let here = Sandbox::new();
    let refine = ["--refine", "base_image_refiner"];
    assert_refused(&here, &refine, "refine: expected --refiner");
    assert_refused(&here, &[&refine[..], &["--refiner", "nothing"]].concat(), "--refiner nothing: ");
    let refiner = golden("refiner");
    here.assert_refused(&["predict", "--model", refiner.to_str().expect("text")], "a refiner");
}
