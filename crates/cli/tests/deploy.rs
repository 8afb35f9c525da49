//! The files in `deploy/` against the binary.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Sandbox;

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The arguments of `calotype` in a line of a unit, of a manifest or of a Containerfile, if it has any.
fn arguments(line: &str) -> Option<Vec<String>> {
    if let Some(command) = line.strip_prefix("ExecStart=") {
        return Some(command.split_whitespace().skip(1).map(String::from).collect());
    }
    let line = line.trim_start();
    let list = line.strip_prefix("args: ").or(line.strip_prefix("CMD "))?;
    Some(serde_json::from_str(list).expect("a list of texts"))
}

/// An argument with the values of `deploy/kubernetes/settings.env.example` in place of `$(NAME)` and `${NAME}`.
fn filled(argument: &str, settings: &str) -> String {
    let values = settings.lines().filter_map(|line| line.split_once('='));
    values.fold(argument.to_owned(), |argument, (name, value)| {
        argument.replace(&format!("$({name})"), value).replace(&format!("${{{name}}}"), value)
    })
}

/// Protects those who deploy with these files: each option and each value is one that the binary takes, and so is each variable of its own.
#[test]
fn options_and_variables_exist() {
    let here = Sandbox::new();
    let help = here.run(&["--help"]).stdout;
    let (mut commands, mut variables) = (0, 0);
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let settings = fs::read_to_string(deploy.join("kubernetes/settings.env.example")).expect("text");
    for file in files(&deploy) {
        let text = fs::read_to_string(&file).expect("text");
        for args in text.lines().filter_map(arguments) {
            // After the other arguments, which are read before it.
            let args: Vec<String> = args.iter().map(|arg| filled(arg, &settings)).collect();
            let all: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
            let ended = here.run(&all);
            assert_eq!(ended.code, Some(0), "{}: {args:?}: {}", file.display(), ended.stderr);
            commands += 1;
        }
        for rest in text.split("CALOTYPE_").skip(1) {
            let name = rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default();
            assert!(help.contains(&format!("CALOTYPE_{name} ")), "{}: CALOTYPE_{name}", file.display());
            variables += 1;
        }
    }
    assert!(commands >= 6 && variables >= 5, "{commands} commands, {variables} variables");
    assert_ne!(here.run(&["serve", "--no-such-option=1", "--help"]).code, Some(0));
}

/// Protects operators: an address that no client could use is refused at the start, and so is an origin that no browser sends.
#[test]
fn addresses_are_checked() {
    let here = Sandbox::new();
    for url in ["notaurl", "ftp://x", "https://x/?q=1", "https://x/#f", "https://", "https://me@x"] {
        here.assert_refused(&["serve", "--public-url", url], "expected an address such as https://");
    }
    for origin in ["foo", "https://a/path", "https://a/", "", "ftp://a"] {
        here.assert_refused(&["serve", "--cors", origin], "expected an origin such as https://");
    }
    for good in ["--public-url=https://x:8443/pictures/", "--cors=https://Example.org:8443", "--cors=*"] {
        assert_eq!(here.run(&["serve", good, "--help"]).code, Some(0), "{good}");
    }
}
