//! Sets that need networks: small ones with random weights, where any words and masks do.

use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

use common::copy_folder;

/// A committed network.
fn network(name: &str) -> PathBuf {
    golden("models").join(name)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden").join(name)
}

/// The width and the pixels of a PNG, grey ones as three equal values.
fn decoded(file: &[u8]) -> (usize, Vec<[u8; 3]>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("all pixels");
    let channels = info.color_type.samples();
    let pixels =
        bytes.chunks_exact(channels).map(|pixel| [pixel[0], pixel[channels / 2], pixel[channels - 1]]);
    (info.width as usize, pixels.collect())
}

/// A sandbox with the pictures of [`sandbox`], a small one more, and the networks in `networks/`.
fn with_networks() -> Sandbox {
    let here = sandbox();
    let rgb: Vec<u8> = (0..20 * 30).flat_map(|n| [(n * 7) as u8, (n % 20 * 9) as u8, 90]).collect();
    here.write("photos/d.png", png(20, 30, &rgb));
    for name in ["blip", "clipseg"] {
        copy_folder(&network(name), &here.path("networks").join(name));
    }
    here
}

const NETWORKS: [&str; 6] =
    ["--captioner", "networks/blip", "--segmenter", "networks/clipseg", "--mask-target-prompts", "a b"];

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    names(folder)
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).expect("a file")))
        .collect()
}

fn text(here: &Sandbox, path: &str) -> String {
    fs::read_to_string(here.path(path)).expect("a text")
}

/// Protects the product: the set has a mask and a caption for each picture, those of the pictures come before made ones, and neither
/// threads nor other pictures change what is made.
#[test]
fn what_is_lacking_is_made() {
    let here = with_networks();
    let ended = run(&here, &["preprocess", "photos", "-o", "set"], &NETWORKS);
    done(&ended);
    let set = files(&here.path("set"));
    for name in ["a", "b", "c", "d"] {
        for ending in ["png", "mask.png", "txt"] {
            assert!(set.contains_key(&format!("{name}.{ending}")), "{name}.{ending}: {:?}", set.keys());
        }
    }
    assert!(text(&here, "set/a.txt").starts_with("a photo of TOK, "), "{}", text(&here, "set/a.txt"));
    assert_eq!(text(&here, "set/b.txt"), "a photo of TOK in the garden\n");
    assert!(ended.stderr.contains("20 × 30 is smaller than 64: enlarged"), "{}", ended.stderr);

    done(&run(
        &here,
        &["preprocess", "photos", "-o", "again"],
        &[&NETWORKS[..], &["--threads", "1"]].concat(),
    ));
    assert!(files(&here.path("again")) == set, "one thread");
    fs::create_dir(here.path("one")).expect("made");
    fs::copy(here.path("photos/d.png"), here.path("one/d.png")).expect("copied");
    done(&run(&here, &["preprocess", "one", "-o", "alone"], &NETWORKS));
    for (name, bytes) in files(&here.path("alone")).iter().filter(|(name, _)| name.starts_with("d.")) {
        assert!(set[name] == *bytes, "{name}");
    }
    let greedy = [&NETWORKS[..], &["--caption-decoding", "greedy"]].concat();
    done(&run(&here, &["preprocess", "photos", "-o", "set"], &greedy));
    assert!(text(&here, "set/a.txt").starts_with("a photo of TOK, "));

    // Nothing is left to make, so that no network is needed any more.
    let before = files(&here.path("set"));
    fs::remove_dir_all(here.path("networks/blip")).expect("removed");
    copy_folder(&network("blip"), &here.path("networks/blip"));
    done(&run(&here, &["preprocess", "photos", "-o", "set"], &greedy));
    assert!(files(&here.path("set")) == before);
}

/// Protects a training's own set: it has what `preprocess` makes, both trainings end with the same bytes, and a run that goes on
/// takes it from its folder, without the networks.
#[test]
fn a_training_makes_its_set() {
    let here = with_networks();
    let more = ["--dtype", "f32", "--lora-rank", "2", "--train-batch-size", "2", "--max-train-steps", "2"];
    let train = |set: &str, dir: &str, networks: &[&str]| {
        let set = format!("input_images=@{set}");
        let command = ["train", "-i", &set, "--run-dir", dir, "--checkpointing-steps", "1", "-q"];
        run(&here, &command, &[&more[..], networks].concat())
    };
    let tar = |dir: &str| fs::read(here.path(dir).join("trained_model.tar")).expect("a tar");
    done(&train("photos", "one", &NETWORKS));
    // Of the training's dtype, which is not that of every CPU.
    done(&run(&here, &["preprocess", "photos", "-o", "set", "-q", "--dtype", "f32"], &NETWORKS));
    assert!(files(&here.path("one/preprocessed")) == files(&here.path("set")), "the same set");
    done(&train("set", "two", &[]));
    assert!(tar("one") == tar("two"), "the same bytes");

    let whole = tar("one");
    fs::remove_dir_all(here.path("networks")).expect("removed");
    fs::remove_dir_all(here.path("one/checkpoints/step-000002")).expect("removed");
    done(&here.run(&["train", "--resume", "one", "-q"]));
    assert!(tar("one") == whole);
    here.write("one/preprocessed/a.txt", "a photo of TOK, corrected");
    here.assert_refused(&["train", "--resume", "one", "-q"], "found others");
}

/// Protects faces: pictures without one are learnt from as a whole, with a warning.
#[test]
fn pictures_without_faces() {
    let here = sandbox();
    let ended = run(&here, &["preprocess", "photos", "-o", "set"], &["--use-face-detection-instead"]);
    done(&ended);
    assert!(ended.stderr.contains("- a.png: no face found: all of it counts\n"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("- c.png: no face"), "its own mask comes before: {}", ended.stderr);
}

/// Protects a run that ends while its set is prepared: the files that were made are in the run's folder. The same command goes on from these
/// files, and opens only the networks that are still needed.
#[test]
fn a_training_goes_on_with_its_set() {
    let here = with_networks();
    let more = ["--dtype", "f32", "--lora-rank", "2", "--max-train-steps", "1"];
    let model = tiny_model();
    let settings = ["--model", model.to_str().expect("text"), "--resolution", "64"];
    let train = |networks: &[&str]| {
        let command = ["train", "-i", "input_images=@photos"];
        here.run(&[&command[..], &settings, &more, networks].concat())
    };
    let weights = fs::read(here.path("networks/blip/model.safetensors")).expect("weights");
    here.write("networks/blip/model.safetensors", &weights[..weights.len() / 2]);
    let ended = train(&NETWORKS);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("runs/photos: what was made is kept, and the same command"),
        "{}",
        ended.stderr
    );
    let made = files(&here.path("runs/photos/preprocessed"));
    assert!(made.contains_key("a.mask.png") && !made.contains_key("a.txt"), "{:?}", made.keys());

    fs::rename(here.path("networks/blip"), here.path("blip")).expect("moved");
    here.write("blip/model.safetensors", weights);
    fs::remove_dir_all(here.path("networks")).expect("removed");
    let ended = train(&[&["--captioner", "blip"], &NETWORKS[2..]].concat());
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "runs/photos/trained_model.tar\n"),
        "{}",
        ended.stderr
    );
    let done = files(&here.path("runs/photos/preprocessed"));
    assert!(done["a.mask.png"] == made["a.mask.png"] && done.contains_key("a.txt"));

    // A folder in which nothing was made is given up.
    copy_folder(&network("blip"), &here.path("networks/blip"));
    copy_folder(&network("clipseg"), &here.path("networks/clipseg"));
    here.write("networks/clipseg/model.safetensors", "");
    let command = ["train", "-i", "input_images=@photos", "--run-dir", "empty"];
    let ended = here.run(&[&command[..], &settings, &more, &NETWORKS].concat());
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(!here.path("empty").exists());
}

/// Protects what is made from being taken for the same in another number format.
#[test]
fn another_number_format() {
    let here = with_networks();
    let made = |dtype: &str| {
        done(&run(&here, &["preprocess", "photos", "-o", "set", "-q", "--dtype", dtype], &NETWORKS));
        files(&here.path("set"))
    };
    let (first, second, again) = (made("f32"), made("bf16"), made("f32"));
    assert!(first == again && first != second);
}

/// Protects against damaged weights: the network is named, and no black picture is written.
#[test]
fn weights_that_are_no_numbers() {
    let here = with_networks();
    let path = "networks/clipseg/model.safetensors";
    let mut weights = fs::read(here.path(path)).expect("weights");
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().expect("a length")) as usize;
    weights[header..].fill(0xff);
    here.write(path, weights);
    let ended = run(&here, &["preprocess", "photos", "-o", "set", "-q", "--dtype", "f32"], &NETWORKS);
    let says = "error: --segmenter: ";
    assert!(ended.code == Some(2) && ended.stderr.starts_with(says), "{}", ended.stderr);
    assert!(ended.stderr.contains("clipseg: computes values that are no numbers"), "{}", ended.stderr);
    assert!(!here.path("set").exists());
}

/// Protects faces: the crop lies around the largest face, which is bright in the mask, or in the middle, where a picture whose face is left
/// out counts as a whole, with a warning.
#[test]
fn pictures_with_faces() {
    let here = Sandbox::new();
    let astronaut = golden("faces/astronaut.png");
    let (across, astronaut) = decoded(&fs::read(astronaut).expect("a picture"));
    // The head, 110 pixels wide, on the right of a wide picture.
    let (side, width) = (110, 330);
    let pixel = |n: usize| {
        let (x, y) = (n % width, n / width);
        if x < 220 { [128; 3] } else { astronaut[(y + 5) * across + x - 220 + 58] }
    };
    let rgb: Vec<u8> = (0..width * side).flat_map(pixel).collect();
    here.write("photos/a.png", png(width as u32, side as u32, &rgb));
    let made = |set: &str, crop: &str| {
        let more = ["--use-face-detection-instead", "--crop-based-on-salience", crop];
        let ended = run(&here, &["preprocess", "photos", "-o", set, "--captioner", "none"], &more);
        done(&ended);
        let (_, mask) = decoded(&fs::read(here.path(set).join("a.mask.png")).expect("a mask"));
        let values: std::collections::BTreeSet<u8> = mask.iter().map(|pixel| pixel[0]).collect();
        (values.first().copied(), values.last().copied(), ended.stderr)
    };
    let (least, most, said) = made("around", "true");
    assert_eq!((least, most), (Some(50), Some(255)), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let (least, most, said) = made("middle", "false");
    assert_eq!((least, most), (Some(255), Some(255)), "{said}");
    assert!(
        said.contains("- a.png: what was found lies outside of the crop: all of the crop counts"),
        "{said}"
    );
}

/// Protects against other networks than those that are expected, and prompts that a tokenizer cuts off: one line, by name.
#[test]
fn other_networks() {
    let here = with_networks();
    let command = ["preprocess", "photos", "-o", "set", "--resolution", "64"];
    let model = tiny_model();
    let model = ["--model", model.to_str().expect("text")];
    let masks = ["--mask-target-prompts", "a b"];
    let long = "a b ".repeat(60);
    for (more, says) in [
        (
            &["--captioner", "networks/clipseg"][..],
            "--captioner: expected a network of model_type blip, found",
        ),
        (&["--captioner", "photos"], "--captioner: expected a network of model_type blip, found"),
        (&["--upscaler", "networks/blip"], "--upscaler: expected a network of model_type swin2sr, found"),
        (&["--segmenter", "networks/blip", masks[0], masks[1]], "--segmenter: expected a network of"),
        (&["--segmenter", "networks/clipseg", masks[0], &long], "mask_target_prompts: "),
    ] {
        here.assert_refused(&[&command[..], &model, more].concat(), says);
    }
    let ended = here.run(&[&command[..], &model, &["--upscaler", "photos/a.png", "-q"]].concat());
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: --upscaler: "), "{}", ended.stderr);
}
