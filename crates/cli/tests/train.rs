//! `calotype train` on the tiny model: whole runs, runs that were interrupted, and what is refused.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Ended, Sandbox, tiny_model};
use serde_json::Value;

/// A sandbox with four pictures in `set/`, one of them with a caption and one with a mask.
fn sandbox() -> Sandbox {
    let here = Sandbox::new();
    for i in 0..4_u8 {
        let pixel = |n: usize| {
            let (x, y) = (n % 80, n / 80);
            [(x * 3) as u8, (y * 3) as u8 ^ (i * 50), i * 60]
        };
        here.write(&format!("set/{i}.png"), png(80, 70, &(0..80 * 70).flat_map(pixel).collect::<Vec<u8>>()));
    }
    here.write("set/0.txt", "a photo of TOK in the garden");
    here.write("set/1.mask.png", png(80, 70, &vec![200; 80 * 70 * 3]));
    here
}

fn png(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(rgb).expect("pixels");
    writer.finish().expect("an end");
    file
}

/// The settings of a short training, with `more` behind them.
fn args(more: &[&str]) -> Vec<String> {
    let model = tiny_model();
    let mut args = vec!["train", "--dtype", "f32"];
    if !more.contains(&"--model") {
        args.extend(["--model", model.to_str().expect("text")]);
    }
    args.extend(["--resolution", "64", "--train-batch-size", "2", "--lora-rank", "4", "--seed", "3"]);
    args.extend(["-i", "input_images=@set"]);
    args.extend(more);
    args.into_iter().map(String::from).collect()
}

fn train(here: &Sandbox, more: &[&str]) -> Ended {
    let args = args(more);
    here.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// The metrics without what differs each time.
fn metrics(here: &Sandbox, dir: &str) -> Vec<Value> {
    let text = fs::read_to_string(here.path(dir).join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).expect("JSON");
        value.as_object_mut().expect("an object").remove("seconds");
        value
    };
    text.lines().map(line).collect()
}

fn tar(here: &Sandbox, dir: &str) -> Vec<u8> {
    fs::read(here.path(dir).join("trained_model.tar")).expect("a tar")
}

/// The pixels of a PNG.
fn decoded(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = BufReader::new(fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("all pixels");
    (info.width, info.height, pixels)
}

/// Protects the product: a run writes its files, prints its tar, and the tar makes pictures and is exported.
#[test]
fn a_run_from_pictures_to_a_picture() {
    let here = sandbox();
    let more = ["--max-train-steps", "6", "--checkpointing-steps", "3", "--sample-every", "4"];
    let more = [&more[..], &["--sample-prompt", "TOK", "--sample-prompt", "a photo of TOK"]].concat();
    let ended = train(&here, &more);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "runs/set/trained_model.tar\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.starts_with("4 pictures, each as 64 × 64, 1 with a mask\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains(" of memory at most, about ") && ended.stderr.contains(" s a step"));
    assert!(ended.stderr.contains(" before the first step\n"), "{}", ended.stderr);
    assert!(ended.stderr.lines().any(|line| line.starts_with("took ")), "{}", ended.stderr);
    assert!(ended.stderr.contains("100%|██████████| 6/6 ["), "{}", ended.stderr);

    let read = |name: &str| fs::read_to_string(here.path("runs/set").join(name)).expect("a file");
    assert!(read("dataset.txt").contains("a photo of TOK in the garden"));
    let settings: Value = serde_json::from_str(&read("settings.json")).expect("JSON");
    assert_eq!((&settings["plan"]["steps"], &settings["request"]["seed"]), (&6.into(), &3.into()));
    let lines = metrics(&here, "runs/set");
    let steps: Vec<&Value> =
        lines.iter().filter(|line| line.get("loss").is_some()).map(|l| &l["step"]).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let validated = lines.iter().filter(|line| line.get("validation_loss").is_some());
    assert_eq!(validated.map(|line| &line["step"]).collect::<Vec<_>>(), [0, 3, 6]);
    assert_eq!((&lines[1]["lr"], &lines[1]["ti_lr"]), (&1e-4.into(), &3e-4.into()));
    assert_eq!(decoded(&here.path("runs/set/loss.png")).0, 1200);
    decoded(&here.path("runs/set/contact_sheet.png"));
    let samples = fs::read_dir(here.path("runs/set/samples")).expect("samples");
    let mut names: Vec<_> = samples.map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    let expected = ["step-000004-1.png", "step-000004-2.png", "step-000006-1.png", "step-000006-2.png"];
    assert_eq!(names, expected);
    assert_eq!(decoded(&here.path("runs/set/samples/step-000004-1.png")).0, 64);
    assert!(here.path("runs/set/checkpoints").is_dir());

    let model = tiny_model();
    let predict = ["predict", "--model", model.to_str().expect("text"), "--width", "64", "--height", "64"];
    let weights = ["-i", "replicate_weights=@runs/set/trained_model.tar", "--num-inference-steps", "2"];
    done(&here.run(&[&predict[..], &weights, &["--prompt", "a TOK", "-q"]].concat()));
    for format in ["kohya", "diffusers"] {
        let args = ["export", "runs/set/trained_model.tar", "--format", format, "-o", "x.safetensors"];
        done(&here.run(&args));
    }

    // The next run has a folder of its own; and a run's folder is not for another.
    let again = train(&here, &["--max-train-steps", "1", "-q"]);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("runs/set-2/trained_model.tar\n", ""));
    let args = args(&["--run-dir", "runs/set"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    here.assert_refused(&args, "--run-dir runs/set: holds a run already");
}

/// Protects the product's other kind: the whole UNet trains, is resumed, becomes a `unet.safetensors` in the tar and makes
/// another picture; no LoRA layout takes it.
#[test]
fn a_full_fine_tune() {
    let here = sandbox();
    let full = ["-i", "is_lora=false", "--unet-learning-rate", "0.01", "--max-train-steps", "4"];
    let run = |dir: &str, more: &[&str]| {
        let settings = ["--checkpointing-steps", "2", "--run-dir", dir, "-q"];
        train(&here, &[&full[..], &settings, more].concat())
    };
    done(&run("whole", &[]));
    done(&run("recomputed", &["--recompute", "on", "--threads", "1"]));
    assert!(tar(&here, "whole") == tar(&here, "recomputed"));
    fs::remove_dir_all(here.path("recomputed/checkpoints/step-000004")).expect("removed");
    done(&here.run(&["train", "--resume", "recomputed", "-q"]));
    assert!(tar(&here, "whole") == tar(&here, "recomputed"), "resumed");
    let refused = run("clipped", &["--max-grad-norm", "1"]);
    let says = "error: max_grad_norm: expected 0 with an optimizer that does not clip (adafactor), found 1\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(2), says));

    let model = tiny_model();
    let picture = |dir: &str, more: &[&str]| {
        let predict =
            ["predict", "--model", model.to_str().expect("text"), "--width", "64", "--height", "64"];
        let rest = ["--num-inference-steps", "2", "--prompt", "a TOK", "--seed", "1", "-o", dir, "-q"];
        let ended = here.run(&[&predict[..], &rest, more].concat());
        done(&ended);
        decoded(&here.path(ended.stdout.trim()))
    };
    let trained = ["-i", "replicate_weights=@whole/trained_model.tar"];
    assert!(picture("plain", &[]) != picture("trained", &trained));
    let export = |format: &str| {
        let args = ["export", "whole/trained_model.tar", "--format", format, "-o", "x.safetensors"];
        here.run(&args)
    };
    done(&export("diffusers"));
    assert_eq!(export("kohya").code, Some(2));
}

/// Protects: the same seed gives the same bytes with any number of threads, and recomputed or not; another seed gives
/// others.
#[test]
fn a_seed_is_a_result() {
    let here = sandbox();
    let run = |dir: &str, more: &[&str]| {
        let settings = ["--max-train-steps", "3", "--run-dir", dir, "-q"];
        done(&train(&here, &[&settings[..], more].concat()));
        (tar(&here, dir), metrics(&here, dir))
    };
    let first = run("one", &["--threads", "1"]);
    assert!(first == run("two", &["--threads", "2"]), "threads");
    assert!(first == run("recomputed", &["--recompute", "on"]), "recomputed");
    let mut other = args(&["--max-train-steps", "3", "--run-dir", "other", "-q"]);
    let seed = other.iter().position(|arg| arg == "3").expect("the seed");
    other[seed] = "0".into();
    done(&here.run(&other.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(first.0 != tar(&here, "other"), "seeds");
}

/// Protects: epochs become steps once the pictures are counted, and `max_train_steps` goes before.
#[test]
fn epochs_are_steps() {
    let here = sandbox();
    let steps = |dir: &str, more: &[&str]| {
        done(&train(&here, &[&["--run-dir", dir, "-q", "--textual-inversion-only"][..], more].concat()));
        metrics(&here, dir).iter().filter(|line| line.get("loss").is_some()).count()
    };
    // 3 times 4 pictures, 2 × 3 a step.
    let accumulated = ["--num-train-epochs", "3", "--gradient-accumulation-steps", "3"];
    assert_eq!(steps("a", &accumulated), 2);
    assert_eq!(steps("b", &["--num-train-epochs", "3", "--max-train-steps", "1"]), 1);
}

/// Starts a run and lets it go on until `enough` of its lines have been read.
fn start(here: &Sandbox, args: &[String], enough: impl Fn(&str) -> bool) -> (Child, Vec<String>) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = here.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut read = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    for line in lines.by_ref() {
        read.push(line.expect("text"));
        if read.last().is_some_and(|line| enough(line)) {
            break;
        }
    }
    // The rest, so that the pipe stays open until the end.
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    RESTS.with_borrow_mut(|rests| rests.insert(child.id(), rest));
    (child, read)
}

type Rest = std::thread::JoinHandle<Vec<String>>;
thread_local! {
    static RESTS: std::cell::RefCell<BTreeMap<u32, Rest>> = const { std::cell::RefCell::new(BTreeMap::new()) };
}

/// Sends a signal, and waits for the end: the exit code and the lines that were left.
#[cfg(unix)]
fn stop(mut child: Child, signal: &str) -> (Option<i32>, Vec<String>) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    let code = child.wait().expect("ends").code();
    let rest = RESTS.with_borrow_mut(|rests| rests.remove(&child.id())).expect("the rest");
    (code, rest.join().expect("lines"))
}

const STEPS: [&str; 6] = ["--max-train-steps", "40", "--checkpointing-steps", "5", "--validate-every", "4"];

/// Protects: a run that was interrupted and one that was killed end with the bytes of one that was not; a finished run
/// writes its tar again.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on() {
    let here = sandbox();
    done(&train(&here, &[&STEPS[..], &["--run-dir", "whole", "-q"]].concat()));
    let whole = (tar(&here, "whole"), metrics(&here, "whole"));

    let args = args(&[&STEPS[..], &["--run-dir", "asked"]].concat());
    let (child, _) = start(&here, &args, |line| line.contains("| 8/40 ["));
    let (code, rest) = stop(child, "-INT");
    assert_eq!(code, Some(130), "{rest:?}");
    let end: Vec<&str> = rest.iter().rev().take(2).map(String::as_str).collect();
    assert_eq!(end, ["interrupted", "resume with: calotype train --resume asked"]);
    assert!(!here.path("asked/trained_model.tar").exists());
    assert!(metrics(&here, "asked").len() < whole.1.len());
    let resumed = here.run(&["train", "--resume", "asked"]);
    assert_eq!(
        (resumed.code, resumed.stdout.as_str()),
        (Some(0), "asked/trained_model.tar\n"),
        "{}",
        resumed.stderr
    );
    assert!(!resumed.stderr.contains("| 1/40 ["), "{}", resumed.stderr);
    assert!((tar(&here, "asked"), metrics(&here, "asked")) == whole, "interrupted");

    let args = self::args(&[&STEPS[..], &["--run-dir", "killed"]].concat());
    let (child, _) = start(&here, &args, |line| line.contains("| 14/40 ["));
    let (code, _) = stop(child, "-KILL");
    assert_eq!(code, None);
    let path = here.path("killed/metrics.jsonl");
    let cut = fs::read(&path).expect("metrics");
    fs::write(&path, [&cut[..], b"{\"step\":99,\"lo"].concat()).expect("written");
    done(&here.run(&["train", "--resume", "killed", "--threads", "1", "-q"]));
    assert!((tar(&here, "killed"), metrics(&here, "killed")) == whole, "killed");

    fs::remove_file(here.path("whole/trained_model.tar")).expect("removed");
    let again = here.run(&["train", "--resume", "whole", "-o", "elsewhere.tar"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("whole: all 40 steps are done"), "{}", again.stderr);
    assert!(fs::read(here.path("elsewhere.tar")).expect("a tar") == whole.0);
}

/// Protects: a run goes on with its own settings, its own set and its own model only, and in one process.
#[test]
fn what_a_run_cannot_be_resumed_with() {
    let here = sandbox();
    common::copy_folder(&tiny_model(), &here.path("model"));
    done(&train(&here, &["--model", "model", "--max-train-steps", "1", "--run-dir", "run", "-q"]));
    let resume = ["train", "--resume", "run"];
    let refused = |more: &[&str], says: &str| here.assert_refused(&[&resume[..], more].concat(), says);
    refused(&["--lora-rank", "8"], "lora_rank: expected 4, found 8");
    refused(
        &["--lora-lr", "1", "--seed", "9"],
        "seed: expected 3, found 9; lora_lr: expected 0.0001, found 1.0",
    );
    refused(&["--noise-offset", "0.1"], "noise_offset: expected 0.0, found 0.1");
    refused(&["--dtype", "bf16"], "--dtype: expected \"f32\", found \"bf16\"");
    here.write("elsewhere/model_index.json", "{}");
    refused(&["--model", "elsewhere"], "--model: expected ");
    refused(&["--run-dir", "other"], "--run-dir");
    here.assert_refused(&["train", "--resume", "nowhere"], "--resume nowhere: expected the folder of a run");
    // The same settings are no others.
    let same = ["-i", "input_images=@set", "--lora-rank", "4", "--max-grad-norm", "1", "-q"];
    done(&here.run(&[&resume[..], &same].concat()));
    let lock = fs::File::open(here.path("run/.lock")).expect("a lock");
    lock.lock().expect("locked");
    refused(&[], "--resume run: another process is training in this folder");
    drop(lock);
    let unet = here.path("model/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&unet).expect("weights");
    *bytes.last_mut().expect("some") ^= 1;
    let weights = fs::read(&unet).expect("weights");
    fs::write(&unet, bytes).expect("written");
    refused(&["-q"], "model: expected the weights and configs that the run began with, found others");
    fs::write(&unet, weights).expect("written");
    here.write("set/0.txt", "a drawing of TOK");
    refused(&["-q"], "input_images: ");
    here.write("run/settings.json", "{}");
    refused(&[], "--resume run: settings.json: ");
}

/// Protects: settings that no training can have, each in one line, with nothing written.
#[test]
fn bad_settings() {
    let here = sandbox();
    for (name, value, says) in [
        ("resolution", "100", "resolution: expected a multiple of 64 from 64 to 2048, found 100"),
        ("resolution", "0", "resolution: expected"),
        ("train_batch_size", "0", "train_batch_size: expected an integer from 1 to 1024, found 0"),
        ("max_train_steps", "0", "max_train_steps: expected an integer from 1 to 10000000, found 0"),
        ("num_train_epochs", "0", "num_train_epochs: expected"),
        ("lora_rank", "0", "lora_rank: expected an integer from 1 to 1024, found 0"),
        ("lora_rank", "99999", "lora_rank: expected"),
        ("lora_lr", "-1", "lora_lr: expected a number, at least 0, found -1"),
        ("lora_lr", "nan", "lora_lr: expected a number, at least 0, found \"nan\""),
        ("ti_lr", "inf", "ti_lr: expected"),
        ("unet_learning_rate", "-0.1", "unet_learning_rate: expected"),
        ("lr_warmup_steps", "-1", "lr_warmup_steps: expected"),
        ("checkpointing_steps", "0", "checkpointing_steps: expected an integer, at least 1, found 0"),
        ("seed", "-1", "seed: expected"),
        ("lr_scheduler", "cosine", "lr_scheduler: expected one of constant, linear, found \"cosine\""),
        ("token_string", "", "token_string: expected a word without spaces, found \"\""),
        ("token_string", "MY DOG", "token_string: expected a word without spaces, found \"MY DOG\""),
        ("caption_prefix", "a TOKYO, ", "caption_prefix: expected the token_string TOK in it"),
        ("input_images_filetype", "zip", "input_images"),
        ("mask_target_prompts", "a dog", "mask_target_prompts: masks from prompts are not available yet"),
        ("use_face_detection_instead", "true", "use_face_detection_instead: face detection is not available"),
        ("clipseg_temperature", "0.5", "clipseg_temperature: masks from prompts are not available yet"),
        ("lora_rnak", "4", "lora_rnak: unknown field, did you mean lora_rank?"),
    ] {
        let model = tiny_model();
        let pair = format!("{name}={value}");
        let args =
            ["train", "--model", model.to_str().expect("text"), "-i", "input_images=@set", "-i", &pair];
        here.assert_refused(&args, says);
    }
    for (more, says) in [
        (["--gradient-accumulation-steps", "0"], "gradient_accumulation_steps: expected"),
        (
            ["--max-grad-norm", "-1"],
            "max_grad_norm: expected a number above 0, or 0 for no clipping, found -1",
        ),
        (["--max-grad-norm", "nan"], "max_grad_norm: expected a number, found NaN"),
        (["--min-snr-gamma", "0"], "min_snr_gamma: expected a number above 0, found 0"),
        (["--noise-offset", "-0.1"], "noise_offset: expected"),
        (["--caption-dropout", "1.5"], "caption_dropout: expected a number from 0 to 1, found 1.5"),
        (["--optimizer", "sgd"], "optimizer: expected one of adamw, adafactor, found \"sgd\""),
        (["--recompute", "maybe"], "--recompute"),
        (["--sample-every", "0"], "--sample-every"),
        (["-o", "nowhere/x.tar"], "-o nowhere/x.tar: "),
        (["--run-dir", "set/0.txt"], "--run-dir set/0.txt: not a directory"),
    ] {
        let args = args(&more);
        here.assert_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), says);
    }
    let model = tiny_model();
    let train = ["train", "--model", model.to_str().expect("text")];
    here.assert_refused(&train, "input_images: required, but not given");
    here.assert_refused(
        &[&train[..], &["-i", "input_images=@none.zip"]].concat(),
        "input_images: none.zip: ",
    );
    here.write("empty/readme.txt", "nothing");
    here.assert_refused(&[&train[..], &["-i", "input_images=@empty"]].concat(), "no picture in the set");
}

/// Protects: another token has a default prefix with it in it.
#[test]
fn the_prefix_follows_the_token() {
    let here = sandbox();
    fs::remove_file(here.path("set/0.txt")).expect("removed");
    done(&train(&here, &["--token-string", "XYZ", "--max-train-steps", "1", "--run-dir", "run", "-q"]));
    let set = fs::read_to_string(here.path("run/dataset.txt")).expect("a report");
    assert!(set.contains("a photo of XYZ"), "{set}");
}

/// Protects: a training that runs away names its step and ends with code 1, and leaves no checkpoint with weights that are no
/// numbers: neither where the next step finds out, nor where there is none.
#[test]
fn a_loss_that_is_no_number() {
    let here = sandbox();
    for (rate, checkpoints) in [("1e30", 1), ("1e39", 0)] {
        let more = [
            "--lora-lr",
            rate,
            "--max-train-steps",
            "20",
            "--checkpointing-steps",
            "1",
            "--run-dir",
            rate,
            "-q",
        ];
        let ended = train(&here, &more);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: step ") && ended.stderr.contains("is not a number"));
        assert!(
            here.path(rate).join("loss.png").is_file() && !here.path(rate).join("trained_model.tar").exists()
        );
        let found = fs::read_dir(here.path(rate).join("checkpoints")).into_iter().flatten();
        let found: Vec<_> = found.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(found.len(), checkpoints, "{rate}: {found:?}");
        for checkpoint in found {
            let state = fs::read(checkpoint.join("state.safetensors")).expect("there");
            let header = u64::from_le_bytes(state[..8].try_into().expect("8 bytes")) as usize;
            let mut values = state[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            assert!(values.all(f32::is_finite), "{}", checkpoint.display());
        }
    }
}

/// Protects: what does not fit into memory is refused before the model is loaded, with what would fit.
#[test]
fn too_little_memory() {
    let here = sandbox();
    let run = |memory: &str, more: &[&str]| {
        let args = args(&[&["--max-train-steps", "1", "--run-dir", memory][..], more].concat());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = here.command(&args).env("CALOTYPE_MEMORY", memory).output().expect("the binary runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, says) = run("1000", &[]);
    assert_eq!((code, says.lines().count()), (Some(1), 1), "{says}");
    assert!(
        says.starts_with("error: memory: expected about ") && says.contains("no smaller setting"),
        "{says}"
    );
    assert!(!here.path("1000").exists());
    let large = ["-i", "resolution=2048"];
    let mut args = args(&[]);
    args.drain(5..7);
    args.extend(large.map(String::from));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = here.command(&args).env("CALOTYPE_MEMORY", "300000000").output().expect("runs");
    let says = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{says}");
    assert!(says.contains("--recompute on") || says.contains("resolution"), "{says}");
}

/// Protects: embeddings can be trained alone, and exported for diffusers as a file of their own; what changes nothing then is
/// said, by name.
#[test]
fn embeddings_alone() {
    let here = sandbox();
    let ended = train(&here, &["--textual-inversion-only", "--max-train-steps", "1", "--run-dir", "run"]);
    done(&ended);
    assert!(ended.stderr.contains("lora_rank: changes nothing in this kind of training"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("ti_lr: "), "{}", ended.stderr);
    let export = ["export", "run/trained_model.tar", "--format", "diffusers", "-o", "TOK.safetensors"];
    let ended = here.run(&export);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "TOK.safetensors\n"), "{}", ended.stderr);
    let file = fs::read(here.path("TOK.safetensors")).expect("there");
    assert!(file.windows(6).any(|bytes| bytes == b"clip_g"));
}

/// Protects: what a killed program has left unfinished in a run's folder is gone once the run goes on.
#[test]
fn leftovers_are_swept_up() {
    let here = sandbox();
    done(&train(&here, &["--max-train-steps", "1", "--run-dir", "run", "-q"]));
    for name in ["run/.calotype-x1", "run/samples/.calotype-x2", "run/samples/mine.png"] {
        here.write(name, "half");
    }
    done(&here.run(&["train", "--resume", "run", "-q"]));
    assert!(!here.path("run/.calotype-x1").exists() && !here.path("run/samples/.calotype-x2").exists());
    assert!(here.path("run/samples/mine.png").exists() && here.path("run/trained_model.tar").exists());
}
