//! `calotype train` on the tiny model: whole runs, runs that were interrupted, and what is refused.

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod refused;
mod resume;
mod runs;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Ended, Sandbox, copy_folder, png, tiny_model};
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

/// The settings of a short training, with `more` behind them.
fn args(more: &[&str]) -> Vec<String> {
    let model = tiny_model();
    let mut args = vec!["train"];
    if !more.contains(&"--dtype") {
        args.extend(["--dtype", "f32"]);
    }
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

/// The texts of a PNG.
fn texts(path: &Path) -> Vec<String> {
    let file = BufReader::new(fs::File::open(path).expect("a file"));
    let reader = png::Decoder::new(file).read_info().expect("a PNG");
    reader.info().uncompressed_latin1_text.iter().map(|text| text.text.clone()).collect()
}

/// The pixels of a PNG.
fn decoded(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = BufReader::new(fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("all pixels");
    (info.width, info.height, pixels)
}

/// Starts a run and lets it go on until `enough` of its lines have been read.
pub fn start(here: &Sandbox, args: &[String], enough: impl Fn(&str) -> bool) -> (Child, Vec<String>) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    start_command(here.command(&args), enough)
}

fn start_command(mut command: Command, enough: impl Fn(&str) -> bool) -> (Child, Vec<String>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
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
