//! Trained weights on the command line: `export` into both layouts, and `predict` with each.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Ended, Sandbox, tiny_model};

/// Golden weights of the tiny model.
fn golden(name: &str) -> PathBuf {
    tiny_model().join("../adapters").join(name)
}

/// A sandbox with `trained_model.tar` in it.
fn sandbox() -> Sandbox {
    let here = Sandbox::new();
    fs::copy(golden("trained_model.tar"), here.path("trained_model.tar")).expect("copied");
    here
}

fn predict(here: &Sandbox, more: &[&str]) -> Ended {
    let model = tiny_model();
    let mut args = vec!["predict", "--model", model.to_str().expect("text"), "--num-inference-steps", "2"];
    args.extend(["--width", "64", "--height", "48", "--seed", "7", "--dtype", "f32", "-q", "-o", "out"]);
    args.extend(more);
    here.run(&args)
}

/// The pixels of the picture that a run printed. (The texts beside them name the files.)
fn pixels(here: &Sandbox, ended: &Ended) -> Vec<u8> {
    let (pixels, _) = decoded(here, ended);
    pixels
}

/// Pixels and the `parameters` text.
fn decoded(here: &Sandbox, ended: &Ended) -> (Vec<u8>, String) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let file = std::io::BufReader::new(fs::File::open(here.path(ended.stdout.trim_end())).expect("a file"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("all pixels");
    let texts = &reader.info().uncompressed_latin1_text;
    let text = texts.iter().find(|t| t.keyword == "parameters").map(|t| t.text.clone()).unwrap_or_default();
    (pixels, text)
}

/// Protects the product: weights exported into each layout give the picture of the tar, byte for byte.
#[test]
fn every_layout_gives_the_same_picture() {
    let here = sandbox();
    let tok = ["--prompt", "a TOK, TOKYO"];
    let tar = predict(&here, &[&tok[..], &["-i", "replicate_weights=@trained_model.tar"]].concat());
    let (want, text) = decoded(&here, &tar);
    assert!(text.starts_with("a TOK, TOKYO <lora:trained_model:0.6>\n"), "{text}");
    assert_ne!(pixels(&here, &predict(&here, &tok)), want);

    let kohya = here.run(&["export", "trained_model.tar", "--format", "kohya", "-o", "kohya.safetensors"]);
    assert_eq!((kohya.code, kohya.stdout.as_str()), (Some(0), "kohya.safetensors\n"));
    assert!(kohya.stderr.contains("diffusers reads no such file: --format diffusers"), "{}", kohya.stderr);
    let found = predict(&here, &[&tok[..], &["--replicate-weights", "kohya.safetensors"]].concat());
    assert_eq!(pixels(&here, &found), want, "kohya");

    let args = ["export", "trained_model.tar", "--format", "diffusers", "-o", "TOK.safetensors"];
    let diffusers = here.run(&args);
    assert_eq!(diffusers.stdout, "TOK.safetensors\nTOK_emb.safetensors\n", "{}", diffusers.stderr);
    fs::rename(here.path("TOK_emb.safetensors"), here.path("emb,TOK.safetensors")).expect("renamed");
    let prompt = ["--prompt", "a <s0><s1>, TOKYO"];
    for files in [
        &["-i", r"replicate_weights=@TOK.safetensors,@emb\,TOK.safetensors"][..],
        &["--replicate-weights", "TOK.safetensors", "-i", r"replicate_weights=@emb\,TOK.safetensors"],
    ] {
        let found = predict(&here, &[&prompt[..], files].concat());
        assert_eq!(pixels(&here, &found), want, "diffusers");
    }
}

/// Protects the scale of a single file: it replaces `lora_scale`, a file whose name ends like a scale is read as it is, the picture's
/// prompt makes the picture again, and a scale that changes nothing is reported.
#[test]
fn files_have_scales() {
    let here = sandbox();
    let tok = ["--prompt", "a TOK"];
    let whole = |more: &[&str]| predict(&here, &[&tok[..], more].concat());
    let want = pixels(&here, &whole(&["-i", "replicate_weights=@trained_model.tar", "--lora-scale", "0.9"]));
    let scaled = whole(&["-i", "replicate_weights=@trained_model.tar:0.9"]);
    let (found, text) = decoded(&here, &scaled);
    assert_eq!(found, want);
    assert!(text.starts_with("a TOK <lora:trained_model:0.9>\n"), "{text}");
    let again = ["--prompt", "a TOK <lora:trained_model:0.9>", "-i", "replicate_weights=@trained_model.tar"];
    assert_eq!(pixels(&here, &predict(&here, &again)), want);
    #[cfg(unix)]
    {
        fs::copy(here.path("trained_model.tar"), here.path("a:0.1")).expect("copied");
        let named = whole(&["--replicate-weights", "a:0.1", "--lora-scale", "0.9"]);
        assert_eq!(pixels(&here, &named), want);
        assert_eq!(pixels(&here, &whole(&["--replicate-weights", "a:0.1:0.9"])), want);
    }
    let missing = ["predict", "-i", "replicate_weights=@none.tar:0.5"];
    here.assert_refused(&missing, "replicate_weights: none.tar: ");
}

/// Protects: the same export gives the same bytes, in the place of an earlier file; kohya's names need the model.
#[test]
fn exports_are_the_same_each_time() {
    let here = sandbox();
    for format in ["kohya", "diffusers"] {
        here.write("a.safetensors", "earlier");
        for name in ["a.safetensors", "b.safetensors"] {
            let ended = here.run(&["export", "trained_model.tar", "--format", format, "-o", name]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        let read = |name: &str| fs::read(here.path(name)).expect("written");
        assert!(
            read("a.safetensors") == read("b.safetensors") && read("a.safetensors").len() > 1000,
            "{format}"
        );
    }
    let kohya = golden("kohya.safetensors");
    let kohya = kohya.to_str().expect("text");
    let args = ["export", kohya, "--format", "diffusers", "-o", "c.safetensors"];
    here.assert_refused(&args, "only be told apart with the model that they are for");
    let model = tiny_model();
    let with_model = here.run(&[&args[..], &["--model", model.to_str().expect("text")]].concat());
    assert_eq!(with_model.stdout, "c.safetensors\nc_emb.safetensors\n", "{}", with_model.stderr);
}

/// Protects: bad weights end with exit code 2 and one line that names the file and the key; nothing is written.
#[test]
fn bad_weights() {
    let here = sandbox();
    let tar = fs::read(here.path("trained_model.tar")).expect("copied");
    here.write("cut.tar", &tar[..20_000]);
    let lora = fs::read(golden("diffusers.safetensors")).expect("golden file");
    here.write("cut.safetensors", &lora[..lora.len() - 1]);
    let text = String::from_utf8_lossy(&lora[..64]).into_owned();
    let renamed = |from: &str, to: &str| -> Vec<u8> {
        let at =
            lora.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        [&lora[..at], to.as_bytes(), &lora[at + from.len()..]].concat()
    };
    here.write("key.safetensors", renamed("unet.mid_block.attentions.0", "unet.mid_block.attentions.1"));
    here.write("shape.safetensors", renamed("\"shape\":[4,16]", "\"shape\":[16,4]"));
    let model = tiny_model();
    let model = model.to_str().expect("text");
    for (name, says) in [
        ("cut.tar", "cut.tar: "),
        ("cut.safetensors", "cut.safetensors: not a safetensors file: "),
        ("key.safetensors", "key.safetensors: unet.mid_block.attentions.1"),
        ("shape.safetensors", "found (16, 4)"),
        ("none.tar", "replicate_weights: none.tar: "),
    ] {
        let given = format!("replicate_weights=@{name}");
        here.assert_refused(&["predict", "--model", model, "-o", "out", "-i", &given], says);
    }
    here.assert_refused(&["export", "cut.tar", "--format", "kohya", "-o", "x.safetensors"], "cut.tar: ");
    here.assert_refused(&["export", "trained_model.tar", "--format", "kohya", "-o", "no/x"], "-o no/x: ");
    here.assert_refused(&["export", "trained_model.tar", "--format", "webui", "-o", "x"], "--format");
    here.assert_refused(&["export", "trained_model.tar", "-o", "x"], "--format");
}

/// Protects: what a prompt asks for and no file has, and what a file has and no prompt asks for, is said; a word in another
/// letter case is that word.
#[test]
fn what_is_not_used_is_said() {
    let here = sandbox();
    let model = tiny_model();
    let said = |prompt: &str| {
        let ended = here.run(&[
            "predict",
            "--model",
            model.to_str().expect("text"),
            "--num-inference-steps",
            "1",
            "--width",
            "16",
            "--height",
            "16",
            "--replicate-weights",
            "trained_model.tar",
            "--prompt",
            prompt,
        ]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    };
    let stderr = said("a fox, embedding:other <lora:none:1>");
    for part in [
        "trained_model.tar: what it has for TOK is not used",
        "embedding:other in the prompt: no file",
        "<lora:none:1> in the prompt names no file",
    ] {
        assert!(stderr.contains(part), "{stderr}\nexpected: {part}");
    }
    let stderr = said("a tok <lora:trained_model:1>");
    assert!(!stderr.contains("not used") && stderr.contains("scaled by 1"), "{stderr}");
}
