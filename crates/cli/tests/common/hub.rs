//! A hub that is a few threads of the test.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::read::GzEncoder;
use ring::digest::{SHA256, digest};

use super::tiny_model;

/// Of the models.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Of no model, but the hub answers requests for it.
pub const OTHER_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";
/// A large file of the model, as far as any is.
pub const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// The models by name and revision, with the folders of their files below that of the tiny model.
const MODELS: [(&str, &str, &str); 6] = [
    ("tiny/sdxl", "main", ""),
    ("stabilityai/stable-diffusion-xl-base-1.0", "main", ""),
    ("tiny/checker", "refs%2Fpr%2F1", "../models/safety_checker"),
    ("tiny/checker", COMMIT, "../models/safety_checker"),
    ("tiny/checker", OTHER_COMMIT, "../models/safety_checker"),
    ("tiny/decoder", "main", "../models/autoencoder_tiny"),
];

/// The folder of a model's files.
fn folder_of(model: &str) -> Option<PathBuf> {
    MODELS.iter().find(|(name, ..)| *name == model).map(|(.., folder)| tiny_model().join(folder))
}

/// How a hub behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// As the real one: sizes and sums in the listing, parts of files.
    #[default]
    Plain,
    /// As a mirror: names alone in the listing, no parts.
    Mirror,
    /// Zips each text if that is allowed, and then sends all of it.
    Zips,
    /// Zips each text, allowed or not.
    ZipsAlways,
    /// Ends in the middle of UNET, the first time.
    Cut,
    /// Falls silent in the middle of UNET, the first time.
    Silent,
    /// The same each time.
    SilentAlways,
    /// Sends other bytes as UNET, the first time.
    Damaged,
    /// The same each time.
    DamagedAlways,
    /// Sends UNET and more, without saying how much.
    Longer,
    /// Answers each file with this status, the first time.
    Busy(u16),
    /// Answers everything with this status.
    Refuses(u16),
    /// Sends for the files to another host, which has them.
    Elsewhere,
    /// Says so in a header of each file.
    Says(&'static str, &'static str),
    /// Redirects each file there; without a place, nowhere.
    Redirects(Option<&'static str>),
    /// Lists a file whose name leads out of the model.
    Names(&'static str),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The hub's own address, or the other's.
    pub host: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// A hub that has the tiny model as `tiny/sdxl` and under SDXL's name, a folder without a model as `tiny/text`, another for those
/// with the token `key` as `tiny/gated`, a safety checker as `tiny/checker`, on no branch, a decoder for previews as `tiny/decoder`, and nothing else.
pub struct Hub {
    pub address: String,
    state: Arc<State>,
}

struct State {
    way: Way,
    /// The other host's address.
    other: String,
    asked: Mutex<Vec<Asked>>,
    /// Lines that are kept open.
    silent: Mutex<Vec<TcpStream>>,
    /// What was asked for before.
    seen: Mutex<BTreeSet<String>>,
}

impl Hub {
    pub fn start() -> Hub {
        Hub::with(Way::Plain)
    }

    pub fn with(way: Way) -> Hub {
        let [first, second] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [address, other] =
            [&first, &second].map(|l| format!("http://{}", l.local_addr().expect("an address")));
        let (asked, silent, seen) = Default::default();
        let state = Arc::new(State { way, other, asked, silent, seen });
        for listener in [first, second] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let state = state.clone();
                    std::thread::spawn(move || state.answer(stream));
                }
            });
        }
        Hub { address, state }
    }

    /// The paths that it was asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        self.requests().into_iter().map(|asked| asked.path).collect()
    }

    /// The same, whole.
    pub fn requests(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.state.asked.lock().expect("no panic"))
    }
}

impl State {
    /// One request, one answer.
    fn answer(&self, mut stream: TcpStream) {
        let host = format!("http://{}", stream.local_addr().expect("an address"));
        let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines().map_while(Result::ok);
        let path = lines.next().and_then(|line| line.split(' ').nth(1).map(String::from)).unwrap_or_default();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let found = headers.iter().filter_map(|line| line.split_once(": "));
            found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let (range, authorization) = (header("range"), header("authorization"));
        let allows_zip = header("accept-encoding").is_some_and(|text| text.contains("gzip"));
        let request = Asked { host: host.clone(), path: path.clone(), range, authorization };
        self.asked.lock().expect("no panic").push(request.clone());
        let parts = path.split_once(&format!("/resolve/{COMMIT}/"));
        let known = parts.and_then(|(model, name)| Some((folder_of(&model[1..])?, name)));
        let known = known.filter(|(folder, name)| folder.join(name).is_file());
        // The client may have gone.
        let _ = match (self.way, known) {
            (Way::Refuses(status), _) => send(&mut stream, status, "", &[]),
            (_, Some((folder, name))) => self.file(&mut stream, &request, (&folder, name), allows_zip),
            (_, None) => self.listing(&mut stream, &request),
        };
    }

    fn listing(&self, stream: &mut TcpStream, request: &Asked) -> std::io::Result<()> {
        let path = request.path.split('?').next().unwrap_or_default();
        let asked = path.strip_prefix("/api/models/").and_then(|path| path.split_once("/revision/"));
        let (model, revision) = asked.unwrap_or_default();
        let is_there = MODELS.iter().any(|(name, at, _)| (*name, *at) == (model, revision));
        let folder = folder_of(model).unwrap_or_default();
        let is_allowed = request.authorization.as_deref() == Some("Bearer key");
        let mut names = match model {
            _ if is_there => names(&folder),
            "tiny/text" => vec!["README.md".to_owned()],
            "tiny/gated" if is_allowed => vec!["README.md".to_owned()],
            "tiny/gated" => return send(stream, 401, "", &[]),
            _ => return send(stream, 404, "", &[]),
        };
        if let Way::Names(name) = self.way {
            names.push(name.to_owned());
        }
        let sibling = |name: &String| {
            let bytes = fs::read(folder.join(name)).unwrap_or_default();
            match (self.way, name.ends_with(".safetensors")) {
                (Way::Mirror, _) => serde_json::json!({ "rfilename": name }),
                (_, false) => serde_json::json!({ "rfilename": name, "size": bytes.len() }),
                (_, true) => serde_json::json!({ "rfilename": name, "size": bytes.len(),
                    "lfs": { "sha256": sum(&bytes), "size": bytes.len(), "pointerSize": 130 } }),
            }
        };
        let siblings: Vec<_> = names.iter().map(sibling).collect();
        let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
        send(stream, 200, "", listing.to_string().as_bytes())
    }

    fn file(
        &self,
        stream: &mut TcpStream,
        request: &Asked,
        (folder, name): (&Path, &str),
        zip: bool,
    ) -> std::io::Result<()> {
        let mut bytes = fs::read(folder.join(name)).expect("a file");
        let is_new = self.seen.lock().expect("no panic").insert(request.path.clone());
        let mut more = format!("etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n", sum(&bytes));
        match self.way {
            Way::Busy(status) if is_new => return send(stream, status, "retry-after: 0\r\n", &[]),
            Way::Redirects(place) => {
                let place = place.map_or(String::new(), |place| format!("location: {place}\r\n"));
                return send(stream, 302, &place, &[]);
            }
            Way::Elsewhere if request.host != self.other => {
                more += &format!(
                    "location: {}{}\r\nx-linked-size: {}\r\n",
                    self.other,
                    request.path,
                    bytes.len()
                );
                return send(stream, 302, &more, &[]);
            }
            // Of two headers of a name, the first counts.
            Way::Says(header, value) => more = format!("{header}: {value}\r\n{more}"),
            Way::Damaged | Way::DamagedAlways
                if name == UNET && (is_new || self.way == Way::DamagedAlways) =>
            {
                bytes.iter_mut().for_each(|byte| *byte ^= 64);
            }
            Way::Longer if name == UNET => {
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{more}\r\n");
                return stream.write_all(&[head.as_bytes(), &bytes, &[0; 100_000]].concat());
            }
            Way::ZipsAlways | Way::Zips if name.ends_with("json") && (zip || self.way == Way::ZipsAlways) => {
                let mut zipped = Vec::new();
                GzEncoder::new(&bytes[..], Compression::fast()).read_to_end(&mut zipped)?;
                return send(stream, 200, &format!("content-encoding: gzip\r\n{more}"), &zipped);
            }
            _ => {}
        }
        let start = request.range.as_ref().filter(|_| self.way != Way::Mirror);
        let start = start.map(|range| {
            let from = range.strip_prefix("bytes=").and_then(|range| range.split('-').next());
            from.and_then(|from| from.parse::<usize>().ok()).expect("a range")
        });
        if let Some(start) = start {
            more += &format!("content-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        }
        let (status, body) = (if start.is_some() { 206 } else { 200 }, &bytes[start.unwrap_or(0)..]);
        let stops = match self.way {
            Way::Cut | Way::Silent => is_new,
            Way::SilentAlways => true,
            _ => false,
        };
        if !(stops && name == UNET) {
            return send(stream, status, &more, body);
        }
        stream.write_all(head(status, &more, body.len()).as_bytes())?;
        stream.write_all(&body[..body.len() / 2])?;
        if self.way != Way::Cut {
            self.silent.lock().expect("no panic").push(stream.try_clone()?);
        }
        Ok(())
    }
}

fn head(status: u16, more: &str, length: usize) -> String {
    format!("HTTP/1.1 {status} It is so\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n")
}

fn send(stream: &mut TcpStream, status: u16, more: &str, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(head(status, more, body.len()).as_bytes())?;
    stream.write_all(body)
}

/// The SHA-256 of a file, in hex.
pub fn sum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
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
