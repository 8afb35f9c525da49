//! Models by name, from a hub that is a thread of the test.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Ended, Sandbox, tiny_model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub that has the tiny model as `tiny/sdxl`, a folder without a model as `tiny/text`, and nothing else.
struct Hub {
    address: String,
    /// What it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = asked.clone();
        std::thread::spawn(move || {
            listener.incoming().map_while(Result::ok).for_each(|stream| answer(stream, &log));
        });
        Hub { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

/// One request, one answer.
fn answer(mut stream: TcpStream, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines().map_while(Result::ok);
    let path = lines.next().and_then(|line| line.split(' ').nth(1).map(String::from)).unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|l| l.to_lowercase()).collect();
    log.lock().expect("no panic").push(path.clone());
    let file = path.strip_prefix("/tiny/sdxl/resolve/main/").map(|name| tiny_model().join(name));
    let (status, more, body) = if path == "/api/models/tiny/sdxl/revision/main" {
        ("200 OK", String::new(), listing(&names(&tiny_model())))
    } else if path == "/api/models/tiny/text/revision/main" {
        ("200 OK", String::new(), listing(&["README.md".into()]))
    } else if let Some(Ok(bytes)) = file.map(fs::read) {
        let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")).expect("a range");
        let (first, last) = range.split_once('-').expect("a range");
        let first: usize = first.parse().expect("a number");
        let last = last.parse().unwrap_or(bytes.len() - 1);
        let tag = path.replace(['/', '.'], "_");
        let more = format!(
            "etag: \"{tag}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {first}-{last}/{}\r\n",
            bytes.len()
        );
        ("206 Partial Content", more, bytes[first..=last].to_vec())
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n", body.len());
    // The client may have gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn listing(names: &[String]) -> Vec<u8> {
    let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
    serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string().into_bytes()
}

/// Every file below a folder, by its path in it.
fn names(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.into()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push(path.strip_prefix(folder).expect("below").to_str().expect("text").to_owned());
            }
        }
    }
    all
}

fn predict(here: &Sandbox, hub: Option<&Hub>, model: &str) -> Ended {
    let args = ["predict", "--model", model, "--width", "64", "--height", "64", "--num-inference-steps", "1"];
    let mut command = here.command(&[&args[..], &["--prompt", "a cat", "--seed", "1"]].concat());
    if let Some(hub) = hub {
        command.env("HF_ENDPOINT", &hub.address);
    }
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Protects: a model is fetched once, only what is needed of it, and found again without the network; what was not fetched to
/// the end is fetched then.
#[test]
fn a_model_by_name() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    let first = predict(&here, Some(&hub), "tiny/sdxl");
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), "out-0.png\n"), "{}", first.stderr);
    assert!(first.stderr.contains("tiny/sdxl: fetching "), "{}", first.stderr);
    let asked = hub.asked();
    assert!(asked.iter().any(|path| path.ends_with("/unet/config.json")), "{asked:?}");
    let folder = predict(&here, None, tiny_model().to_str().expect("text"));
    assert_eq!(folder.stdout, "out-1.png\n", "{}", folder.stderr);

    let second = predict(&here, Some(&hub), "tiny/sdxl");
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), "out-2.png\n"), "{}", second.stderr);
    assert_eq!(hub.asked(), Vec::<String>::new());
    let third = predict(&here, None, "tiny/sdxl");
    assert_eq!(third.code, Some(0), "{}", third.stderr);
    assert!(
        fs::read(here.path("out-2.png")).expect("a file")
            == fs::read(here.path("out-3.png")).expect("a file")
    );

    let snapshot = here.path("hub/hub/models--tiny--sdxl/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("vae/diffusion_pytorch_model.safetensors")).expect("there");
    assert_eq!(predict(&here, Some(&hub), "tiny/sdxl").code, Some(0));
    assert!(hub.asked().iter().all(|path| path.contains("/vae/") || path.starts_with("/api/")));
}

/// Protects: no such model, one that is none of SDXL, and no network: one line each, in seconds.
#[test]
fn what_cannot_be_fetched() {
    let (here, hub) = (Sandbox::new(), Hub::start());
    for (hub, model, code, says) in [
        (Some(&hub), "tiny/none", 2, "--model tiny/none: expected a folder or a model on the hub"),
        (Some(&hub), "tiny/text", 2, "--model tiny/text: expected an SDXL model in diffusers' layout"),
        (None, "tiny/sdxl", 1, "connect to the network once, or give --model a folder that has the model"),
        (None, "tiny/sdxl/unet", 2, "--model tiny/sdxl/unet: expected a folder, found nothing there"),
    ] {
        let ended = predict(&here, hub, model);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(code), 1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(says), "{}", ended.stderr);
    }
}
