//! Where results go: files, links, devices and pipes, and never onto what is read.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use common::{Sandbox, tiny_model};

/// A sandbox with `trained_model.tar` in it, and what `export` makes of it.
fn sandbox() -> (Sandbox, Vec<u8>) {
    let here = Sandbox::new();
    fs::copy(tiny_model().join("../adapters/trained_model.tar"), here.path("trained_model.tar"))
        .expect("copied");
    assert_eq!(here.run(&export("plain")).code, Some(0));
    let file = fs::read(here.path("plain")).expect("a file");
    (here, file)
}

fn export(to: &str) -> [&str; 6] {
    ["export", "trained_model.tar", "--format", "kohya", "-o", to]
}

/// Protects: a device and a pipe are written to and stay what they are, also behind a link; on stdout there is the file
/// alone. (Links of the sandbox: whoever breaks this replaces no device.)
#[test]
fn devices_and_pipes_are_written_through() {
    let (here, file) = sandbox();
    symlink("/dev/null", here.path("null")).expect("a link");
    symlink("/dev/stdout", here.path("stdout")).expect("a link");
    assert_eq!(here.run(&export("null")).stdout, "null\n");
    assert_eq!(fs::read_link(here.path("null")).expect("a link").to_str(), Some("/dev/null"));

    let output = here.command(&export("stdout")).output().expect("the binary runs");
    assert!(
        output.status.success() && output.stdout == file,
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert!(Command::new("mkfifo").arg(here.path("pipe")).status().expect("mkfifo").success());
    let reader = Command::new("cat").arg(here.path("pipe")).stdout(Stdio::piped()).spawn().expect("cat");
    assert_eq!(here.run(&export("pipe")).stdout, "pipe\n");
    assert!(reader.wait_with_output().expect("read").stdout == file);
}

/// Protects: a link stays, and its target is replaced as a whole.
#[test]
fn links_are_followed() {
    let (here, file) = sandbox();
    here.write("folder/target", "old");
    symlink("folder/target", here.path("link")).expect("a link");
    assert_eq!(here.run(&export("link")).stdout, "link\n");
    assert!(fs::read_link(here.path("link")).is_ok());
    assert!(fs::read(here.path("folder/target")).expect("there") == file);
    assert_eq!(fs::read_dir(here.path("folder")).expect("there").count(), 1);
}

/// Protects: a link to nothing is refused before the work, of a file, of a folder and on the way to one.
#[test]
fn links_to_nothing_are_refused() {
    let (here, _) = sandbox();
    symlink("gone/pictures", here.path("link")).expect("a link");
    let says = "a link to gone/pictures, which is not there";
    here.assert_refused(&export("link"), says);
    here.assert_refused(&["predict", "-o", "link"], says);
    here.assert_refused(&["predict", "-o", "link/below"], says);
    here.assert_refused(&["train", "-i", "input_images=@trained_model.tar", "--run-dir", "link"], says);
    here.assert_refused(&["train", "-i", "input_images=@trained_model.tar", "-o", "link"], says);
}

/// Protects: no result replaces what it is made from.
#[test]
fn inputs_are_not_replaced() {
    let (here, file) = sandbox();
    here.write("set/a.png", "");
    here.write("prefix.txt", "a photo of TOK");
    here.write("model/unet/config.json", "{}");
    here.write("model/model_index.json", "{}");
    fs::write(here.path("folder.safetensors"), &file).expect("written");
    symlink("trained_model.tar", here.path("link")).expect("a link");
    let says = "expected a file of its own, found one that is read";
    here.assert_refused(&export("trained_model.tar"), &format!("{says} (TRAINED)"));
    here.assert_refused(&export("link"), says);
    here.assert_refused(&export("./set/../trained_model.tar"), says);
    // Of a run's folder, its own files; an earlier export in it is replaced like any other.
    fs::create_dir(here.path("run")).expect("made");
    fs::copy(here.path("trained_model.tar"), here.path("run/trained_model.tar")).expect("copied");
    here.write("run/settings.json", "{}");
    let of_run = |to| ["export", "run", "--format", "kohya", "-o", to];
    for own in ["run/trained_model.tar", "run/settings.json"] {
        here.assert_refused(&of_run(own), &format!("{says} (TRAINED)"));
    }
    for _ in 0..2 {
        assert_eq!(here.run(&of_run("run/x.safetensors")).stdout, "run/x.safetensors\n");
    }
    assert!(fs::read(here.path("run/x.safetensors")).expect("there") == file);
    let model = [&export("model/unet/config.json")[..], &["--model", "model"]].concat();
    here.assert_refused(&model, &format!("{says} (--model)"));
    let train = ["train", "-i", "input_images=@set", "-i", "caption_prefix=@prefix.txt", "-o"];
    here.assert_refused(&[&train[..], &["set/a.png"]].concat(), &format!("{says} (input_images)"));
    here.assert_refused(&[&train[..], &["prefix.txt"]].concat(), &format!("{says} (caption_prefix)"));
}
