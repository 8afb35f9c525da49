//! A hub that is a thread of the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::tiny_model;

/// Of the models.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub calls the tiny model.
const MODELS: [&str; 2] = ["tiny/sdxl", "stabilityai/stable-diffusion-xl-base-1.0"];

/// A hub that has the tiny model as `tiny/sdxl` and under SDXL's name, a folder without a model as `tiny/text`, another for those
/// with the token `key` as `tiny/gated`, and nothing else.
pub struct Hub {
    pub address: String,
    /// What it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    pub fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = asked.clone();
        std::thread::spawn(move || {
            listener.incoming().map_while(Result::ok).for_each(|stream| answer(stream, &log));
        });
        Hub { address, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

/// One request, one answer.
fn answer(mut stream: TcpStream, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines().map_while(Result::ok);
    let path = lines.next().and_then(|line| line.split(' ').nth(1).map(String::from)).unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|l| l.to_lowercase()).collect();
    log.lock().expect("no panic").push(path.clone());
    let file = MODELS.iter().find_map(|model| path.strip_prefix(&format!("/{model}/resolve/main/")));
    let file = file.map(|name| tiny_model().join(name));
    let (status, more, body) = if MODELS.iter().any(|m| path == format!("/api/models/{m}/revision/main")) {
        ("200 OK", String::new(), listing(&names(&tiny_model())))
    } else if path == "/api/models/tiny/text/revision/main" {
        ("200 OK", String::new(), listing(&["README.md".into()]))
    } else if path == "/api/models/tiny/gated/revision/main" {
        let allowed = headers.iter().any(|line| line == "authorization: bearer key");
        let status = if allowed { "200 OK" } else { "401 Unauthorized" };
        (status, String::new(), listing(&["README.md".into()]))
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
