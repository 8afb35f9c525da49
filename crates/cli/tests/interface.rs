//! What scripts rely on: help, version, schemas, licences.

mod common;

use std::collections::BTreeSet;

use common::Sandbox;

/// Protects: help and version go to stdout with code 0; the help has every field that works.
#[test]
fn help_and_version() {
    let here = Sandbox::new();
    let help = here.run(&["predict", "-h"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for flag in
        ["--prompt", "--negative-prompt", "--num-inference-steps", "--guidance-scale", "--seed", "--model"]
    {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    assert!(help.stdout.contains("--lora-scale") && help.stdout.contains("--high-noise-frac"));
    let train = here.run(&["train", "-h"]).stdout;
    for flag in ["--input-images", "--token-string", "--lora-rank", "--resume", "--noise-offset", "--run-dir"]
    {
        assert!(train.contains(flag), "{flag}");
    }
    assert!(train.contains("--use-face-detection-instead") && train.contains("--captioner"));
    let published = "If you want to crop the image to";
    assert!(train.contains(published) && train.contains("false crops in the middle"), "what the field does");
    let schema = here.run(&["schema", "train"]).stdout;
    assert!(schema.contains(published) && !schema.contains("false crops in the middle"));
    let help = here.run(&["--help"]).stdout;
    for variable in ["CALOTYPE_MODEL", "CALOTYPE_MEMORY", "CALOTYPE_ISA"] {
        assert!(help.contains(variable), "{variable}");
    }
    let version = here.run(&["--version"]);
    assert_eq!(version.stdout, format!("calotype {}\n", env!("CARGO_PKG_VERSION")));
}

/// Protects the synopsis of docs/usage.md: it has every option of every command, and no other.
#[test]
fn the_synopsis_is_whole() {
    let here = Sandbox::new();
    let usage = include_str!("../../../docs/usage.md");
    let synopsis =
        usage.split("\n```\n").find(|part| part.starts_with("calotype predict ")).expect("a synopsis");
    let options = |text: &str| -> BTreeSet<String> {
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        names.filter(|name| name.len() > 2 && name.starts_with("--")).map(String::from).collect()
    };
    let of_all = ["--quiet", "--help", "--input", "--output", "--field"];
    for command in [
        "predict",
        "preprocess",
        "train",
        "export",
        "watermark",
        "schema",
        "demo",
        "serve",
        "worker",
        "token",
    ] {
        let lines = synopsis
            .split("\ncalotype ")
            .filter(|lines| lines.trim_start_matches("calotype ").starts_with(command));
        let mut said = options(&lines.collect::<String>());
        let help = here.run(&[command, "-h"]).stdout;
        let help = help.split("\nFields:").next().expect("a part");
        let is_option = |line: &&str| line.trim_start().starts_with('-');
        let mut known: BTreeSet<String> = BTreeSet::new();
        for line in help.lines().filter(is_option) {
            known.extend(options(
                line.trim_start().splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ").as_str(),
            ));
        }
        for name in of_all {
            said.remove(name);
            known.remove(name);
        }
        assert_eq!(said, known, "{command}");
    }
}

/// Protects: the program alone says what it can do, as `--help` does.
#[test]
fn alone_it_prints_its_help() {
    let here = Sandbox::new();
    let (alone, help) = (here.run(&[]), here.run(&["-h"]));
    assert_eq!((alone.code, alone.stderr.as_str()), (Some(0), ""));
    assert_eq!(alone.stdout, help.stdout);
}

/// Protects: completions and manual pages come from the same table as the command line: every command and its options are in them.
#[test]
fn completions_and_manual_pages() {
    let here = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = here.run(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["predict", "guidance-scale", "train", "token-string", "export", "demo"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
    let pages = here.run(&["man", "-o", "pages"]);
    assert_eq!((pages.code, pages.stderr.as_str()), (Some(0), ""));
    let names: Vec<&str> = pages.stdout.lines().collect();
    assert!(names.contains(&"pages/calotype.1") && names.contains(&"pages/calotype-train.1"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("bench") || name.contains("help")), "{names:?}");
    let text = |name: &str| std::fs::read_to_string(here.path(name)).expect(name);
    assert!(text("pages/calotype-predict.1").contains("\\-\\-guidance\\-scale"));
    assert!(text("pages/calotype.1").contains("calotype\\-export(1)"));
}

/// Protects: `schema` prints one JSON document whose properties are in the published order.
#[test]
fn schemas_are_json() {
    let here = Sandbox::new();
    for (name, title, first, count) in
        [("predict", "Input", "prompt", 19), ("train", "TrainingInput", "input_images", 22)]
    {
        let ended = here.run(&["schema", name]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let schema: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(schema["title"], title);
        let properties = schema["properties"].as_object().expect("properties");
        assert_eq!((properties.len(), properties.keys().next().map(String::as_str)), (count, Some(first)));
        assert!(properties.values().enumerate().all(|(i, field)| field["x-order"] == i));
    }
}

/// Protects: `--licenses` prints the notices whole: crates that are linked, fonts and data, the standard library, and texts.
#[test]
fn licenses() {
    let ended = Sandbox::new().run(&["--licenses"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../THIRD-PARTY.md");
    assert_eq!(ended.stdout, std::fs::read_to_string(path).expect("the notices"));
    for row in [
        "| tokenizers ",
        "| webpki-roots ",
        "X11's misc-fixed fonts",
        "OpenAI's CLIP",
        "`models/pocket`",
        "## Rust's standard library",
        "| hashbrown ",
        "Mozilla Public License Version 2.0",
        "CDLA-Permissive-2.0",
    ] {
        assert!(ended.stdout.contains(row), "{row}");
    }
}
