//! A service in a process of its own, and what its clients do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{Sandbox, tiny_model};

/// How long a test waits for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of the program, which is killed at the end of its test.
pub struct Process {
    pub child: Child,
    /// Its lines on stderr, from the last that was read.
    pub lines: std::sync::mpsc::Receiver<String>,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let (to, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Process { child, lines }
    }

    /// The first line that has `part`, without what is before it.
    pub fn line_with(&self, part: &str) -> String {
        let mut read = Vec::new();
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part:?} in {read:?}"));
            if let Some((_, rest)) = line.split_once(part) {
                return rest.to_owned();
            }
            read.push(line);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// The exit code, once the process ends.
    pub fn ends(&mut self) -> Option<i32> {
        let start = Instant::now();
        wait("an end", || {
            assert!(start.elapsed() < PATIENCE);
            self.child.try_wait().expect("there").map(|status| status.code())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
pub fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A service with its address.
pub struct Service {
    pub process: Process,
    pub address: String,
    agent: ureq::Agent,
}

/// The options of the tiny model.
pub fn model() -> Vec<String> {
    ["--model", tiny_model().to_str().expect("text"), "--dtype", "f32"].map(String::from).into()
}

/// The command line of a service or a worker in the sandbox's folder `data`.
pub fn command(here: &Sandbox, name: &str, more: &[&str]) -> Command {
    let model = model();
    let mut args = vec![name, "--data", "data"];
    args.extend(model.iter().map(String::as_str));
    args.extend(more);
    here.command(&args)
}

impl Service {
    pub fn start(here: &Sandbox, more: &[&str]) -> Service {
        let process = Process::start(command(here, "serve", &[&["--listen", "127.0.0.1:0"], more].concat()));
        let address = process.line_with("listening on ");
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Service { process, address, agent: config.build().into() }
    }

    /// The status and the body of an answer.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.agent.get(format!("{}{path}", self.address)).call().expect("an answer");
        read(answer)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.address));
        let answer = request.header("content-type", "application/json").send(body.to_string());
        read(answer.expect("an answer"))
    }

    /// A file of the service, or in a data URI.
    pub fn file(&self, url: &str) -> Vec<u8> {
        if let Some((_, data)) = url.split_once(";base64,") {
            return STANDARD.decode(data).expect("base64");
        }
        let url = if url.starts_with('/') { format!("{}{url}", self.address) } else { url.to_owned() };
        let mut answer = self.agent.get(&url).call().expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{url}");
        answer.body_mut().read_to_vec().expect("a body")
    }

    /// The pictures of a prediction, made at once.
    pub fn pictures(&self, input: &Value) -> Vec<Vec<u8>> {
        let (status, body) = self.post("/predictions", &json!({ "input": input }));
        assert_eq!((status, &body["status"]), (200, &json!("succeeded")), "{body}");
        let outputs = body["output"].as_array().expect("an array").iter();
        outputs.map(|url| self.file(url.as_str().expect("text"))).collect()
    }

    /// A job of /v1 once it is over.
    pub fn over(&self, path: &str) -> Value {
        wait("the end of a job", || {
            let (_, job) = self.get(path);
            let is_over = ["succeeded", "failed", "canceled"].iter().any(|status| job["status"] == *status);
            is_over.then_some(job)
        })
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = answer.body_mut().read_to_string().expect("text");
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A data URI.
pub fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
