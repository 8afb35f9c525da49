//! Runs the binary in a directory of its own.
#![allow(dead_code)] // Not every test file needs all of this.

pub mod hub;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A PNG file of RGB pixels.
pub fn png(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(rgb).expect("pixels");
    writer.finish().expect("an end");
    file
}

/// An empty directory that the binary runs in.
pub struct Sandbox {
    dir: TempDir,
}

/// How a run ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Ended {
        let output = command.output().expect("the binary runs");
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Sandbox {
    pub fn new() -> Sandbox {
        Sandbox { dir: tempfile::tempdir().expect("a directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, contents).expect("written");
    }

    /// The binary, to be run here with nothing of the caller's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_calotype"), args)
    }

    /// The same of another program.
    pub fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).env_remove("CALOTYPE_MODEL").stdin(Stdio::null());
        // A hub that is not there, and a cache of its own.
        command
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_HOME", self.path("hub"))
            .env_remove("HF_TOKEN");
        for name in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "HF_TOKEN_PATH",
        ] {
            command.env_remove(name);
        }
        // The pocket model is unpacked once for all tests.
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home");
        command.env("HOME", &home).env("XDG_CACHE_HOME", home.join(".cache"));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        Ended::of(&mut self.command(args))
    }

    /// Bad input: exit code 2, one line on stderr that says `says`, nothing on stdout, nothing written.
    pub fn assert_refused(&self, args: &[&str], says: &str) {
        self.assert_refused_with(args, &[], says);
    }

    /// The same with environment variables.
    pub fn assert_refused_with(&self, args: &[&str], variables: &[(&str, &str)], says: &str) {
        let before = files(self.dir.path());
        let ended = Ended::of(self.command(args).envs(variables.iter().copied()));
        let all = format!("{args:?}: code {:?}, stderr {:?}", ended.code, ended.stderr);
        assert_eq!(ended.code, Some(2), "{all}");
        assert_eq!(ended.stderr.lines().count(), 1, "{all}");
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(says),
            "{all}\nexpected: {says}"
        );
        assert_eq!(ended.stdout, "", "{all}");
        assert_eq!(files(self.dir.path()), before, "{all}");
    }
}

/// Every file below `dir` with its contents, and every directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, None);
        } else {
            let contents = fs::read(&path).unwrap_or_default(); // a link may lead nowhere
            found.insert(path, Some(contents));
        }
    }
    found
}

/// Copies a folder and all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// The committed tiny SDXL folder.
pub fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdxl/tests/golden/pipeline")
}
