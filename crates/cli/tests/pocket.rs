//! The pocket model: what a newcomer runs first. Real pictures, and real learning.

mod common;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use common::{Ended, Sandbox};

/// A picture's side and its pixels, from the top left.
struct Picture {
    side: usize,
    pixels: Vec<[f32; 3]>,
}

impl Picture {
    fn read(path: &Path) -> Picture {
        let file = fs::read(path).expect("a file");
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().expect("a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut bytes).expect("all pixels");
        let (width, _) = reader.info().size();
        let pixels = bytes.chunks_exact(3).map(|p| [0, 1, 2].map(|c| f32::from(p[c]))).collect();
        Picture { side: width as usize, pixels }
    }

    /// The mean of the pixels along the edges of the upper half, where a plain picture shows its background.
    fn background(&self) -> [f32; 3] {
        let edge = 4;
        let at = |i: usize| (i % self.side, i / self.side);
        let is_edge = |&(i, _): &(usize, &[f32; 3])| {
            let (x, y) = at(i);
            y < self.side / 2 && (x < edge || x >= self.side - edge || y < edge)
        };
        let chosen: Vec<&[f32; 3]> = self.pixels.iter().enumerate().filter(is_edge).map(|(_, p)| p).collect();
        [0, 1, 2].map(|c| chosen.iter().map(|p| p[c]).sum::<f32>() / chosen.len() as f32)
    }

    /// The share of the pixels that are near a colour.
    fn share_of(&self, colour: [f32; 3]) -> f32 {
        let near = |p: &&[f32; 3]| (0..3).map(|c| (p[c] - colour[c]).powi(2)).sum::<f32>().sqrt() < 60.0;
        self.pixels.iter().filter(near).count() as f32 / self.pixels.len() as f32
    }
}

fn predict(here: &Sandbox, prompt: &str, more: &[&str]) -> Ended {
    let ended = here.run(
        &[&["predict", "--prompt", prompt, "--num-inference-steps", "15", "--seed", "1"], more].concat(),
    );
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

/// Protects: without a model there is one, which is said in one line with how to get another; its pictures have its size;
/// threads change nothing.
#[test]
fn a_picture_without_a_model() {
    let here = Sandbox::new();
    let ended = predict(&here, "a red fox in the snow", &[]);
    let first = ended.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("model: pocket") && first.contains("--model stabilityai/"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "out-0.png\n");
    let picture = Picture::read(&here.path("out-0.png"));
    assert_eq!((picture.side, picture.pixels.len()), (128, 128 * 128));
    let quiet = predict(&here, "a red fox in the snow", &["--threads", "1", "-q"]);
    assert_eq!(quiet.stderr, "");
    assert!(
        fs::read(here.path("out-0.png")).expect("there") == fs::read(here.path("out-1.png")).expect("there")
    );
    predict(&here, "a red fox in the snow", &["--width", "160"]);
    assert_eq!(Picture::read(&here.path("out-2.png")).pixels.len(), 160 * 128);
}

/// Protects: the pictures follow the prompt. The colours are those of `tools/pocket/places.py`.
#[test]
fn backgrounds_have_the_colour_that_was_asked_for() {
    let here = Sandbox::new();
    let colours = [
        ("red", [222.0, 70.0, 66.0]),
        ("blue", [84.0, 150.0, 226.0]),
        ("green", [104.0, 186.0, 110.0]),
        ("black", [34.0, 34.0, 40.0]),
    ];
    for (i, (name, colour)) in colours.iter().enumerate() {
        predict(&here, &format!("a banana on a plain {name} background"), &["-q"]);
        let found = Picture::read(&here.path(&format!("out-{i}.png"))).background();
        let apart = |other: &[f32; 3]| (0..3).map(|c| (found[c] - other[c]).powi(2)).sum::<f32>().sqrt();
        let nearest =
            colours.iter().min_by(|a, b| apart(&a.1).total_cmp(&apart(&b.1))).map(|(name, _)| *name);
        assert_eq!(nearest, Some(*name), "{found:?}");
        assert!(apart(colour) < 70.0, "{name}: {found:?}");
    }
}

/// Protects: the demo, with fewer steps, teaches the model its subject: the loss falls, and the command that it ends with
/// makes a picture with the orange and the teal of the mascot, which there is none of without what was learnt. All of it with
/// the pocket model, whatever the environment's is.
#[cfg(unix)]
#[test]
fn a_small_demo() {
    let here = Sandbox::new();
    let demo = here
        .command(&["demo", "--steps", "60", "-o", "my demo"])
        .env("CALOTYPE_MODEL", common::tiny_model())
        .output()
        .expect("it runs");
    let said = String::from_utf8(demo.stderr).expect("text");
    assert!(demo.status.success(), "{said}");
    assert_eq!(demo.stdout, b"my demo/run/trained_model.tar\nmy demo/demo.png\n");
    assert!(Picture::read(&here.path("my demo/demo.png")).side > 1000);

    let metrics = fs::read_to_string(here.path("my demo/run/metrics.jsonl")).expect("there");
    let validation =
        |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["validation_loss"].as_f64();
    let validations: Vec<f64> = metrics.lines().filter_map(validation).collect();
    let (first, last) = (validations[0], validations[validations.len() - 1]);
    assert!(last < 0.9 * first, "{validations:?}");

    let hint = said.lines().last().unwrap_or_default();
    let (before, _) = hint.split_once(" --replicate-weights").expect("what was learnt");
    let share = |line: &str, folder: &str| {
        let line = format!("{line} --seed 1 -q -o {folder}");
        let binaries = Path::new(env!("CARGO_BIN_EXE_calotype")).parent().expect("a folder");
        let mut shell = here.command_of("/bin/sh", &["-c", &line]);
        shell.env("PATH", binaries).env("CALOTYPE_MODEL", common::tiny_model());
        let ended = shell.output().expect("a shell");
        assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
        let picture = Picture::read(&here.path(&format!("{folder}/out-0.png")));
        picture.share_of([244.0, 126.0, 52.0]).min(10.0 * picture.share_of([24.0, 140.0, 150.0]))
    };
    let (before, after) = (share(before, "before"), share(hint, "after"));
    assert!(after > 0.025 && after > 3.0 * before, "{before} before, {after} after");
    here.assert_refused(&["demo", "-o", "my demo"], "-o my demo: set is there already");
}

/// Protects: each demo has a folder of its own, and a quiet one says nothing but where its results are.
#[test]
fn demos_do_not_meet() {
    let here = Sandbox::new();
    fs::create_dir(here.path("calotype-demo")).expect("made");
    fs::create_dir(here.path("pocket")).expect("made"); // not the model
    let ended = here.run(&["demo", "--steps", "1", "-q"]);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.stdout, "calotype-demo-2/run/trained_model.tar\ncalotype-demo-2/demo.png\n");
}

/// Protects: the networks that go with the pocket model make a set of pictures without a word about them: captions name thing and place,
/// the mask covers the thing, a small picture is enlarged better than by the filter alone, and what is not there is said.
#[test]
fn a_set_of_bare_pictures() {
    let here = Sandbox::new();
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/pocket_preprocessing.safetensors");
    let golden = fs::read(golden).expect("a golden file");
    let golden = safetensors::SafeTensors::deserialize(&golden).expect("tensors");
    for (name, tensor) in [("fox", "fox.picture"), ("little", "fox.small"), ("octopus", "octopus.picture")] {
        let view = golden.tensor(tensor).expect("a picture");
        here.write(
            &format!("photos/{name}.png"),
            common::png(view.shape()[1] as u32, view.shape()[0] as u32, view.data()),
        );
    }
    let preprocess = |set: &str, prompt: &str, more: &[&str]| {
        let command = ["preprocess", "photos", "-o", set, "--mask-target-prompts", prompt];
        let ended = here.run(&[&command[..], &["--caption-decoding", "greedy"], more].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    };
    let said = preprocess("set", "a fox", &[]);
    let caption = |name: &str| fs::read_to_string(here.path(&format!("set/{name}.txt"))).expect("a caption");
    assert!(caption("fox").contains("a fox in the snow"), "{}", caption("fox"));
    assert!(caption("octopus").contains("octopus"), "{}", caption("octopus"));
    assert!(!said.contains("found nothing for 'a fox' in fox.png"), "{said}");

    let (mask, cover) = (pixels(&here.path("set/fox.mask.png")), golden.tensor("fox.cover").expect("a mask"));
    let both = || mask.iter().zip(cover.data()).map(|(a, b)| (*a > 127, *b > 127));
    let count = |of: fn((bool, bool)) -> bool| both().filter(|&pair| of(pair)).count() as f32;
    let overlap = count(|(a, b)| a && b) / count(|(a, b)| a || b);
    assert!(mask.len() == cover.data().len() && overlap > 0.75, "{overlap}");

    let said = preprocess("plain", "a bicycle", &["--upscaler", "none"]);
    for name in ["fox.png", "octopus.png"] {
        assert!(said.contains(&format!("found nothing for 'a bicycle' in {name}")), "{said}");
    }
    let truth = golden.tensor("fox.picture").expect("a picture");
    let error = |set: &str| {
        let found = pixels(&here.path(set).join("little.png"));
        assert_eq!(found.len(), truth.data().len());
        found.iter().zip(truth.data()).map(|(a, b)| f32::from(a.abs_diff(*b)).powi(2)).sum::<f32>()
    };
    assert!(error("set") < 0.85 * error("plain"), "{} {}", error("set"), error("plain"));
}

/// The bytes of a picture's pixels.
fn pixels(path: &Path) -> Vec<u8> {
    let file = fs::read(path).expect("a file");
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut bytes).expect("all pixels");
    bytes
}

/// The megabytes of memory on the line of `said` that begins with `start`.
#[cfg(target_os = "linux")]
fn megabytes(said: &str, start: &str) -> f64 {
    let line = said.lines().find(|line| line.starts_with(start) && line.contains(" of memory at most"));
    let before = line.and_then(|line| line.split_once(" MB of memory at most")).expect("megabytes").0;
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Protects: a training takes no more memory than it says before it begins, and not much less.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_that_was_said() {
    let here = Sandbox::new();
    here.run(&["predict", "--num-inference-steps", "1", "-o", "set", "-q"]);
    for more in [
        &["--train-batch-size", "4"][..],
        &["--is-lora", "false", "--train-batch-size", "1"],
        &["--stop", "auto", "--validate-every", "1", "--lora-layers", "all", "--train-batch-size", "2"],
    ] {
        let ended =
            here.run(&[&["train", "-i", "input_images=@set", "--max-train-steps", "2"], more].concat());
        let (said, took) = (megabytes(&ended.stderr, "about "), megabytes(&ended.stderr, "took "));
        assert!((1.0..1.4).contains(&(said / took)), "{more:?}: {said} MB said, {took} MB taken");
    }
}

/// Protects: a training on the pocket model has its size, and goes on from a checkpoint also when the cache was emptied and has
/// another path, with the bytes of one that was not cut off: as this CPU computes by itself, and in bf16 as one that multiplies
/// bf16 numbers.
#[cfg(unix)]
#[test]
fn a_training_without_a_model() {
    training_without_a_model(&[], &[]);
    training_without_a_model(&["--dtype", "bf16"], &[("CALOTYPE_ISA", "emulated")]);
}

#[cfg(unix)]
fn training_without_a_model(more: &[&str], environment: &[(&str, &str)]) {
    let here = Sandbox::new();
    let run = |cache: &str, args: &[&str]| {
        let cache = here.path(cache);
        let mut command = here.command(args);
        command.env("XDG_CACHE_HOME", &cache).env("HOME", &cache).envs(environment.iter().copied());
        let output = command.output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{said}");
        (String::from_utf8(output.stdout).expect("text"), said)
    };
    let (tar, run_dir) = ("runs/set/trained_model.tar", here.path("runs/set"));
    run("cache", &["predict", "--num-outputs", "2", "--num-inference-steps", "1", "-o", "set"]);
    let settings = ["--max-train-steps", "2", "--train-batch-size", "1", "--checkpointing-steps", "1"];
    let (printed, said) =
        run("cache", &[&["train", "-i", "input_images=@set"], &settings[..], more].concat());
    assert_eq!(printed, format!("{tar}\n"));
    assert!(said.starts_with("model: pocket"), "{said}");
    let whole = fs::read(here.path(tar)).expect("there");
    let settings = fs::read_to_string(run_dir.join("settings.json")).expect("there");
    let settings: serde_json::Value = serde_json::from_str(&settings).expect("JSON");
    let resolutions = (&settings["request"]["resolution"], &settings["plan"]["resolution"]);
    assert_eq!(resolutions, (&128.into(), &128.into()));

    fs::remove_file(here.path(tar)).expect("there");
    let newest =
        fs::read_dir(run_dir.join("checkpoints")).expect("there").map(|e| e.expect("an entry").path());
    fs::remove_dir_all(newest.max().expect("checkpoints")).expect("there");
    fs::remove_dir_all(here.path("cache")).expect("there");
    fs::create_dir(here.path("other")).expect("made");
    std::os::unix::fs::symlink(here.path("other"), here.path("link")).expect("made");
    run("link", &["train", "--resume", "runs/set"]);
    assert!(fs::read(here.path(tar)).expect("there") == whole);
}
