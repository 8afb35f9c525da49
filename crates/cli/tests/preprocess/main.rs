//! `calotype preprocess`, and what `train` does with its set before it trains.

#[path = "../common/mod.rs"]
mod common;
mod networks;

use std::fs;
use std::path::Path;

use common::{Ended, Sandbox, png, tiny_model};

/// A sandbox with three pictures in `photos/`: a wide one, a small one with a caption, and one with a mask.
fn sandbox() -> Sandbox {
    let here = Sandbox::new();
    for (name, width, height) in [("a.png", 120, 70), ("b.png", 60, 50), ("c.png", 70, 90)] {
        let pixel = |n: usize| {
            let (x, y) = (n % width, n / width);
            [(x * 2) as u8, (y * 2) as u8 ^ (width as u8), (x * y) as u8]
        };
        let rgb: Vec<u8> = (0..width * height).flat_map(pixel).collect();
        here.write(&format!("photos/{name}"), png(width as u32, height as u32, &rgb));
    }
    here.write("photos/b.txt", "a photo of TOK in the garden");
    let mask: Vec<u8> = (0..70 * 90).flat_map(|n| [if n / 70 > 60 { 255 } else { 40 }; 3]).collect();
    here.write("photos/c.mask.png", png(70, 90, &mask));
    here
}

/// Runs a command on the tiny model at 64 × 64 pixels.
fn run(here: &Sandbox, command: &[&str], more: &[&str]) -> Ended {
    let model = tiny_model();
    let settings = ["--model", model.to_str().expect("text"), "--resolution", "64", "--seed", "3"];
    here.run(&[command, &settings, more].concat())
}

fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Protects the product: a set is made of pictures, its path is printed, and a training on it writes the bytes that a training on
/// the pictures writes.
#[test]
fn a_set_from_pictures() {
    let here = sandbox();
    let ended = run(&here, &["preprocess", "photos", "-o", "set"], &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "set\n"), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("3 pictures, each as 64 × 64, 1 with a mask\n"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("seed 3; look at set/contact_sheet.png\n"), "{}", ended.stderr);
    let expected = [
        "a.png",
        "a.txt",
        "b.png",
        "b.txt",
        "c.mask.png",
        "c.png",
        "c.txt",
        "contact_sheet.png",
        "dataset.txt",
        "preprocess.json",
    ];
    assert_eq!(names(&here.path("set")), expected);
    assert_eq!(fs::read_to_string(here.path("set/a.txt")).expect("a text"), "a photo of TOK\n");

    let train = |set: &str, dir: &str| {
        let set = format!("input_images=@{set}");
        let more =
            ["--dtype", "f32", "--lora-rank", "2", "--train-batch-size", "2", "--max-train-steps", "2"];
        let command = ["train", "-i", &set, "--run-dir", dir, "-q"];
        done(&run(&here, &command, &more));
        fs::read(here.path(dir).join("trained_model.tar")).expect("a tar")
    };
    assert!(train("photos", "one") == train("set", "two"), "the same bytes");
    assert!(!here.path("one/preprocessed").exists(), "no network has made anything");
}

/// Protects what is there: a second run writes nothing and keeps the seed, and what was corrected stays.
#[test]
fn a_second_run() {
    let here = sandbox();
    let model = tiny_model();
    let args = ["preprocess", "photos", "-o", "set", "-q", "--resolution", "64"];
    let args = [&args[..], &["--model", model.to_str().expect("text")]].concat();
    done(&here.run(&args));
    here.write("set/a.txt", "TOK is wide");
    let times = |names: &[&str]| -> Vec<_> {
        let time = |name: &&str| fs::metadata(here.path("set").join(name)).and_then(|file| file.modified());
        names.iter().map(|name| time(name).expect("a time")).collect()
    };
    let names = ["a.png", "a.txt", "b.png", "b.txt", "c.mask.png", "c.png", "c.txt"];
    let before = times(&names);
    let index = fs::read(here.path("set/preprocess.json")).expect("an index");
    let ended = here.run(&args);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "set\n", ""));
    assert_eq!(times(&names), before);
    assert!(fs::read(here.path("set/preprocess.json")).expect("an index") == index);
    let report = fs::read_to_string(here.path("set/dataset.txt")).expect("a report");
    assert!(report.contains("TOK is wide"), "{report}");
}

/// Protects what is refused: one line that says what to do, and nothing is written.
#[test]
fn what_is_refused() {
    let here = sandbox();
    here.write("own/a.png", png(2, 2, &[0; 12]));
    let model = tiny_model();
    let model = ["--model", model.to_str().expect("text")];
    for (args, says) in [
        (&["preprocess", "photos"][..], "--output <SET>"),
        (&["preprocess", "-o", "set"], "PHOTOS: expected a folder, a .zip, a .tar or a .tar.gz"),
        (&["preprocess", "nothing", "-o", "set"], "input_images: nothing: "),
        (&["preprocess", "photos", "-o", "photos"], "-o photos: expected another folder"),
        (&["preprocess", "photos", "-o", "."], "-o .: expected another folder"),
        (&["preprocess", "photos", "-o", "photos/a.png"], "-o photos/a.png: not a directory"),
        (&["preprocess", "photos", "-o", "own"], "own/a.png: is there already, and was not made"),
        (&["preprocess", "photos", "-i", "input_images=@photos", "-o", "set"], "input_images: given twice"),
        (&["preprocess", "photos", "-o", "set", "-i", "lora_rank=4"], "lora_rank: unknown field"),
        (
            &["preprocess", "photos", "-o", "set", "--clipseg-temperature", "-1"],
            "clipseg_temperature: expected",
        ),
        (&["preprocess", "photos", "-o", "set", "--captioner", "nowhere"], "--captioner nowhere: expected"),
        (
            &["preprocess", "photos", "-o", "set", "--segmenter", "photos/a.png"],
            "--segmenter photos/a.png: expected",
        ),
        (&["preprocess", "photos", "-o", "set", "--caption-decoding", "guess"], "--caption-decoding"),
        (
            &["preprocess", "photos", "-o", "set", "--mask-target-prompts", "a dog"],
            "mask_target_prompts: expected a segmenter for it (--segmenter DIR|NAME)",
        ),
        (
            &["preprocess", "photos", "-o", "set", "--mask-target-prompts", "a dog", "--segmenter", "none"],
            "mask_target_prompts: expected a segmenter that finds it in the pictures without a mask, found --segmenter none",
        ),
        (
            &["preprocess", "photos", "-o", "set", "--token-string", "XYZ", "--caption-prefix", "a cat"],
            "caption_prefix: ",
        ),
    ] {
        here.assert_refused(&[args, &model].concat(), says);
    }
    // A captioner that has to be fetched, where there is no hub.
    let args = ["preprocess", "photos", "-o", "set", "--captioner", "someone/captioner", "-q"];
    let ended = here.run(&[&args[..], &model].concat());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: --captioner someone/captioner: "), "{}", ended.stderr);
    assert!(!here.path("set").exists());
}
