//! `calotype predict` on the committed tiny model: files, seeds, threads, Ctrl-C.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Cursor};
use std::process::{Command, Stdio};

use common::{Ended, Sandbox, tiny_model};
use serde_json::Value;

/// A small request; `more` comes behind it.
fn predict(here: &Sandbox, more: &[&str]) -> Ended {
    let model = tiny_model();
    let mut args = vec!["predict", "--model", model.to_str().expect("text"), "--num-inference-steps", "3"];
    args.extend(["--width", "64", "--height", "48", "--prompt", "a cat"]);
    args.extend(more);
    here.run(&args)
}

/// The bytes of the files that a run printed, all of them there.
fn pictures(here: &Sandbox, ended: &Ended) -> Vec<Vec<u8>> {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(|line| fs::read(here.path(line)).expect(line)).collect()
}

/// A PNG's size and its texts by keyword.
fn decoded(picture: &[u8]) -> ((u32, u32), impl Fn(&str) -> String) {
    let mut reader = png::Decoder::new(Cursor::new(picture)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("all pixels");
    let info = reader.info().clone();
    let size = (info.width, info.height);
    let text = move |keyword: &str| {
        let latin =
            info.uncompressed_latin1_text.iter().find(|t| t.keyword == keyword).map(|t| t.text.clone());
        let other = || info.utf8_text.iter().find(|t| t.keyword == keyword).and_then(|t| t.get_text().ok());
        latin.or_else(other).expect("a text chunk")
    };
    (size, text)
}

/// A PNG's pixels.
fn pixels(picture: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(Cursor::new(picture)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("all pixels");
    pixels
}

/// Protects: stdout has the paths and nothing else, in a directory made for them; stderr has the seed and progress.
#[test]
fn paths_seed_and_progress() {
    let here = Sandbox::new();
    let ended = predict(&here, &["-o", "a/b", "--seed", "7"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "a/b/out-0.png\n"), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines[0], "seed 7");
    assert!(lines[lines.len() - 1].starts_with("100%|██████████| "), "{lines:?}");
    let again = predict(&here, &["-o", "a/b", "--seed", "7", "-q"]);
    assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("a/b/out-1.png\n", ""));
    let bare = predict(&here, &["--seed", "7", "-q"]);
    assert_eq!(bare.stdout, "out-0.png\n");
}

/// Protects: a picture says what it was made from, in the web UIs' layout and as a request that makes it again.
#[test]
fn pictures_carry_their_request() {
    let here = Sandbox::new();
    let ended = predict(&here, &["-i", "negative_prompt=犬", "--seed", "7", "--num-outputs", "2"]);
    let pictures = pictures(&here, &ended);
    let (size, text) = decoded(&pictures[1]);
    assert_eq!(size, (64, 48));
    let parameters = text("parameters");
    let start =
        "a cat\nNegative prompt: 犬\nSteps: 3, Sampler: Euler, CFG scale: 7.5, Seed: 8, Size: 64x48, Model: ";
    assert!(parameters.starts_with(start), "{parameters}");
    let calotype: Value = serde_json::from_str(&text("calotype")).expect("JSON");
    let pairs: Vec<String> = (calotype["input"].as_object().expect("a request").iter())
        .flat_map(|(name, value)| {
            let plain = value.as_str().map(str::to_string).unwrap_or(value.to_string());
            ["-i".to_string(), format!("{name}={plain}")]
        })
        .collect();
    let model = tiny_model();
    let mut args = vec!["predict", "--model", model.to_str().expect("text"), "-o", "again"];
    args.extend(pairs.iter().map(String::as_str));
    let again = here.run(&args);
    assert_eq!(self::pictures(&here, &again), pictures[1..], "{}", again.stderr);
}

/// Protects: one seed is one file, byte for byte, however many threads; another seed is another picture.
#[test]
fn a_seed_is_a_picture() {
    let here = Sandbox::new();
    for dtype in ["f32", "bf16"] {
        let run = |more: &[&str]| pictures(&here, &predict(&here, &[&["--dtype", dtype], more].concat()));
        let first = run(&["--seed", "0", "--threads", "1"]);
        assert_eq!(first, run(&["--seed", "0", "--threads", "2"]), "{dtype}: threads");
        assert_eq!(first, run(&["--seed", "0", "--threads", "5"]), "{dtype}: threads");
        assert_ne!(first, run(&["--seed", "1"]), "{dtype}: seeds");
    }
}

/// Protects: a batch's second picture is what the next seed gives alone.
#[test]
fn a_batch_counts_seeds() {
    let here = Sandbox::new();
    for scheduler in ["K_EULER_ANCESTRAL", "DPMSolverMultistep"] {
        let run = |more: &[&str]| {
            pictures(&here, &predict(&here, &[&["--dtype", "f32", "--scheduler", scheduler], more].concat()))
        };
        let batch = run(&["--seed", "4", "--num-outputs", "2"]);
        assert_eq!(batch.len(), 2);
        assert_eq!(batch[1..], run(&["--seed", "5"]), "{scheduler}");
    }
}

/// Protects the timesteps that are asked for: other pictures, which say it; samplers without a use for them refuse them.
#[test]
fn timestep_spacing() {
    let here = Sandbox::new();
    let run = |more: &[&str]| pictures(&here, &predict(&here, &[&["--seed", "4"], more].concat())).remove(0);
    let (usual, trailing) = (run(&[]), run(&["--timestep-spacing", "trailing"]));
    assert_ne!(pixels(&usual), pixels(&trailing));
    let (_, text) = decoded(&trailing);
    let json: Value = serde_json::from_str(&text("calotype")).expect("JSON");
    assert_eq!(json["timestep_spacing"], "trailing");
    let lcm = run(&["--scheduler", "LCM"]);
    assert_ne!(pixels(&usual), pixels(&lcm));
    let model = tiny_model();
    let model = model.to_str().expect("text");
    let args = ["predict", "--model", model, "--scheduler", "LCM", "--timestep-spacing", "trailing"];
    here.assert_refused(&args, "timestep_spacing: expected none with LCM");
}

/// Protects habits of other programs: a text's file as Windows' editors save it, a seed of -1 that is a random one, a guidance
/// of 0 that is none.
#[test]
fn habits_of_other_programs() {
    let here = Sandbox::new();
    let run = |more: &[&str]| {
        pictures(&here, &predict(&here, &[&["--dtype", "f32", "--seed", "3"], more].concat()))
    };
    let utf16: Vec<u8> = "\u{feff}a dog\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    here.write("utf8.txt", "\u{feff}a dog\r\n");
    here.write("utf16.txt", utf16);
    let plain = run(&["-i", "negative_prompt=a dog"]);
    for file in ["utf8.txt", "utf16.txt"] {
        assert_eq!(plain, run(&["-i", &format!("negative_prompt=@{file}")]), "{file}");
    }
    assert_eq!(run(&["--guidance-scale", "1"]), run(&["--guidance-scale", "0"]));
    let random = predict(&here, &["-i", "seed=-1"]);
    assert_eq!(random.code, Some(0), "{}", random.stderr);
    assert!(
        random.stderr.lines().any(|line| line.starts_with("seed ") && line != "seed -1"),
        "{}",
        random.stderr
    );
}

/// Protects: what is made of an empty negative prompt is chosen by a flag; where nobody chose, and diffusers would make another
/// picture, that is said in a line. The pictures say which.
#[test]
fn an_empty_negative_prompt() {
    let here = Sandbox::new();
    let run = |more: &[&str]| predict(&here, &[&["--dtype", "f32", "--seed", "3"], more].concat());
    let says = |ended: &Ended| ended.stderr.contains("--empty-negative zeros");
    let (unchosen, encoded, zeros) =
        (run(&[]), run(&["--empty-negative", "encode"]), run(&["--empty-negative", "zeros"]));
    assert_eq!([says(&unchosen), says(&encoded), says(&zeros)], [true, false, false], "{}", unchosen.stderr);
    assert!(!says(&run(&["--guidance-scale", "1"])) && !says(&run(&["-i", "negative_prompt=a dog"])));
    let [unchosen, encoded, zeros] = [&unchosen, &encoded, &zeros].map(|ended| pictures(&here, ended));
    assert_eq!(unchosen, encoded);
    assert_ne!(unchosen, zeros);
    let (_, text) = decoded(&zeros[0]);
    assert!(text("calotype").contains(r#""empty_negative":"zeros""#));
}

/// Protects: who writes weights into a prompt, as for other programs, is told once that they are text.
#[test]
fn weights_in_a_prompt_are_text() {
    let here = Sandbox::new();
    let warned = predict(&here, &["-i", "negative_prompt=a (red:1.4) fox [x]"]);
    assert_eq!(warned.stderr.matches("warning: ").count(), 1, "{}", warned.stderr);
    assert!(warned.stderr.contains("(red:1.4)"), "{}", warned.stderr);
}

/// Protects: Ctrl-C ends a run at its next step with code 130 and writes nothing.
#[cfg(unix)]
#[test]
fn ctrl_c_stops() {
    let here = Sandbox::new();
    let model = tiny_model();
    let args =
        ["predict", "--model", model.to_str().expect("text"), "--num-inference-steps", "500", "-o", "out"];
    let mut child = here.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map(|l| l.expect("text"));
    // The first step's line: the run is in its loop, with many steps to go.
    assert!(lines.any(|line| line.starts_with("  0%|")), "a progress line");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    let rest: Vec<String> = lines.collect();
    let status = child.wait().expect("ends");
    assert_eq!(status.code(), Some(130), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("interrupted"));
    assert!(!rest.iter().any(|line| line.starts_with("100%|")), "{rest:?}");
    assert!(!here.path("out").exists());
}

/// Protects: what becomes of a prompt that does not fit is said once, and not once for each text encoder; brackets are text, with a hint,
/// unless the option reads them; and the picture's prompt with the same options makes the picture again.
#[test]
fn a_long_prompt_is_said_once() {
    let here = Sandbox::new();
    let (prompt, model) = ("a red fox ".repeat(60), tiny_model());
    let model = model.to_str().expect("text");
    let size = ["--width", "64", "--height", "64", "--num-inference-steps", "1"];
    let run = |prompt: &str, more: &[&str]| {
        let args =
            [&["predict", "--model", model, "--prompt", prompt, "--seed", "1"][..], &size, more].concat();
        let ended = here.run(&args);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (std::fs::read(here.path(ended.stdout.trim_end())).expect("a picture"), ended.stderr)
    };
    let says = |stderr: &str, what: &str| assert_eq!(stderr.matches(what).count(), 1, "{stderr}");
    let (chunks, said) = run(&prompt, &[]);
    says(&said, "it is encoded in 4 chunks of up to 75 (--long-prompts truncate cuts it off)");
    let (cut, said) = run(&prompt, &["--long-prompts", "truncate"]);
    says(&said, "this end of it is ignored");
    says(&run(" ", &[]).1, "warning: the prompt is empty: the picture may show anything");
    let (text, said) = run("a (red:1.4) fox", &[]);
    says(&said, "\"(red:1.4)\" is taken as text (--prompt-weights reads weights and BREAK)");
    let (weighted, said) = run("a (red:1.4) fox", &["--prompt-weights"]);
    assert!(!said.contains("(red:1.4)") && chunks != cut && text != weighted, "{said}");
    assert_eq!(run("a (red:1.4) fox", &["--prompt-weights"]).0, weighted);
}

/// Protects the watermark: on by default from 256 × 256 pixels, read back from the PNG, and off where the request says so. A small
/// model's small pictures have none, which is said only where the watermark was asked for.
#[test]
fn large_pictures_have_a_watermark() {
    let here = Sandbox::new();
    let model = tiny_model();
    let make = |more: &[&str]| {
        let mut args = vec!["predict", "--model", model.to_str().expect("text"), "--seed", "1"];
        args.extend(["--num-inference-steps", "1", "--prompt", "a cat"]);
        args.extend(more);
        let ended = here.run(&args);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    };
    let large = ["--width", "256", "--height", "256"];
    assert!(!make(&large).contains("watermark"));
    make(&[&large[..], &["--apply-watermark", "false"]].concat());
    let small = "below 256 × 256 pixels";
    assert!(!make(&[]).contains(small));
    assert!(
        make(&["--apply-watermark", "true"]).contains(&format!("warning: no watermark: 64 × 64 is {small}"))
    );
    let read = here.run(&["watermark", "out-0.png"]);
    assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""));
    assert!(read.stdout.starts_with("out-0.png: watermark very likely ("), "{}", read.stdout);
    let read = here.run(&["watermark", "out-0.png", "out-1.png", "out-2.png"]);
    assert_eq!(
        (read.code, read.stderr.as_str()),
        (Some(1), "error: no watermark found in 2 of 3 pictures\n")
    );
    assert!(read.stdout.contains("out-2.png: no watermark (below 256 × 256"), "{}", read.stdout);
    here.assert_refused(&["watermark", "nothing.png"], "nothing.png: No such file");
    here.write("text.png", "no picture");
    here.assert_refused(&["watermark", "text.png"], "text.png: cannot be read");
}

/// A copy of the tiny safety checker in which every concept's threshold is `threshold`.
fn safety_checker(here: &Sandbox, name: &str, threshold: f32) {
    let golden = tiny_model().join("../models/safety_checker");
    let mut weights = fs::read(golden.join("model.safetensors")).expect("weights");
    let header = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes")) as usize;
    let tensors: Value = serde_json::from_slice(&weights[8..8 + header]).expect("a header");
    let start =
        8 + header + tensors["concept_embeds_weights"]["data_offsets"][0].as_u64().expect("a place") as usize;
    weights[start..start + 17 * 4].copy_from_slice(&threshold.to_le_bytes().repeat(17));
    here.write(&format!("{name}/model.safetensors"), weights);
    here.write(&format!("{name}/config.json"), fs::read(golden.join("config.json")).expect("a config"));
}

/// Protects the safety checker: flagged pictures are not written, whose line says why; others are. Without weights a line says
/// that nothing was checked, unless that is what the request asks for. Pickled weights and contradictions are refused.
#[test]
fn flagged_pictures_are_not_written() {
    let here = Sandbox::new();
    safety_checker(&here, "strict/safety_checker", -2.0);
    safety_checker(&here, "lenient", 2.0);
    let ended = predict(&here, &["--seed", "7", "-q", "--num-outputs", "2", "--safety-checker", "strict"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        lines[1]
            .starts_with("picture 2 (seed 8) is not written: flagged by the safety checker (concept 0 by ")
    );
    assert_eq!(lines[2], "error: no picture is left: the safety checker flagged all");
    assert!(!here.path("out-0.png").exists());

    let without = "pictures pass no safety checker";
    let lenient = predict(&here, &["--seed", "7", "--safety-checker", "lenient"]);
    assert_eq!((pictures(&here, &lenient).len(), lenient.stderr.contains(without)), (1, false));
    assert!(predict(&here, &["--seed", "7"]).stderr.contains(without));
    assert!(!predict(&here, &["--seed", "7", "--disable-safety-checker", "true"]).stderr.contains(without));

    let both = ["predict", "--safety-checker", "lenient", "--disable-safety-checker", "true"];
    here.assert_refused(&both, "expected no disable_safety_checker=true beside it");
    here.assert_refused(
        &["predict", "--safety-checker", "strict/safety"],
        "expected a folder, or OWNER/NAME of a model on the hub, found nothing there",
    );
    here.write("empty/README.md", "");
    here.assert_refused(
        &["predict", "--safety-checker", "empty"],
        "expected a folder with a safety checker's config.json",
    );
    here.write("pickled/config.json", "{}");
    here.write("pickled/pytorch_model.bin", "");
    here.assert_refused(
        &["predict", "--safety-checker", "pickled"],
        "pickled/pytorch_model.bin: not a safetensors file: an empty file",
    );
}
