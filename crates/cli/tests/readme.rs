//! The README's commands, typed as a newcomer would.
#![cfg(unix)]

mod common;

use std::env;
use std::fs;
use std::path::Path;

use common::Sandbox;
use common::hub::Hub;

/// What makes a command short: the models of a test know nothing anyway.
const SHORTER: [(&str, &str); 2] = [
    ("calotype predict ", " --num-inference-steps 2"),
    ("calotype train -i ", " --max-train-steps 2 --train-batch-size 1 --resolution 64"),
];

/// The lines of the README's `sh` blocks, and what stands in its text as a command, in their order.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(kind) => in_block = kind == "sh",
            None if in_block => commands.push(line.to_owned()),
            None => {
                let spans = line.split('`').skip(1).step_by(2);
                let is_command = |span: &&str| span.starts_with("calotype ") || span.starts_with("cargo ");
                commands.extend(spans.filter(is_command).map(String::from));
            }
        }
    }
    commands
}

/// Protects: every command in the README works as it stands there, one after the other. The demo, cargo's own and so on are
/// lines of `.ci/run`.
#[test]
fn every_command_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    let (here, hub) = (Sandbox::new(), Hub::start());
    for (i, name) in ["photos/cat.png", "photos/dog.png"].into_iter().enumerate() {
        let pixels: Vec<u8> = (0..64 * 64 * 3).map(|n| (n * (i + 3) % 251) as u8).collect();
        here.write(name, common::png(64, 64, &pixels));
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_calotype")).parent().expect("a folder");
    let path = format!("{}:{}", binaries.display(), env::var("PATH").unwrap_or_default());
    let mut exports = String::new();
    let mut ran = 0;
    for command in commands(&readme) {
        if command.starts_with("export ") {
            exports.push_str(&format!("{command}; "));
        } else if command.starts_with("cargo ") {
            assert!(ci.contains(&command), ".ci/run: expected {command}");
        } else {
            let shorter = SHORTER.iter().find(|(start, _)| command.starts_with(start));
            let line = format!("{exports}{command}{}", shorter.map_or("", |(_, more)| more));
            let mut shell = here.command_of("sh", &["-c", &line]);
            let ended = shell.env("PATH", &path).env("HF_ENDPOINT", &hub.address).output().expect("a shell");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success(), "{line}\n{said}");
            let printed = String::from_utf8(ended.stdout).expect("text");
            assert!(
                printed.lines().all(|made| here.path(made).exists()) && !printed.is_empty(),
                "{line}: {printed}"
            );
            ran += 1;
        }
    }
    assert!(ran >= 5, "{ran} commands");
}
