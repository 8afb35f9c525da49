//! A service with an engine that computes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use calotype_serve::error::Result;
use calotype_serve::settings::Settings;
use reqwest::{Client, Method};
use serde_json::{Value, json};

pub use crate::stand_in::{PNG, StandIn};

/// A service in this process, which ends with the test.
pub struct Service {
    pub address: String,
    pub engine: Arc<StandIn>,
    folder: Option<tempfile::TempDir>,
    client: Client,
    thread: Option<JoinHandle<Result<()>>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Service {
    /// A service with one worker.
    pub fn start() -> Service {
        Service::with(|_| {})
    }

    /// A service whose jobs wait for ever.
    pub fn front() -> Service {
        Service::with(|settings| settings.workers = 0)
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Service {
        // A second one in the same process is refused, and not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(StandIn::default());
        let mut settings = Settings::in_folder(folder.path());
        settings.listen = ([127, 0, 0, 1], 0).into();
        change(&mut settings);
        let (to, addresses) = std::sync::mpsc::channel();
        let own = engine.clone();
        let thread = std::thread::spawn(move || {
            calotype_serve::serve(settings, own, move |address| to.send(address).unwrap())
        });
        let Ok(address) = addresses.recv() else { panic!("{:?}", thread.join()) };
        let address = format!("http://{address}");
        Service {
            address,
            engine,
            folder: Some(folder),
            client: Client::builder().no_proxy().build().unwrap(),
            thread: Some(thread),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.address) };
        self.client.request(method, url).timeout(Duration::from_secs(60))
    }

    pub async fn get(&self, path: &str) -> Answer {
        read(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        read(self.request("POST", path).json(&body)).await
    }

    /// A job of /v1 once it is over.
    pub async fn over(&self, path: &str) -> Value {
        loop {
            let job = self.get(path).await.body;
            if !matches!(job["status"].as_str(), Some("starting" | "processing")) {
                return job;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A job of /v1 once a worker has it.
    pub async fn begun(&self, path: &str) {
        while self.get(path).await.body["status"] == "starting" {
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the end of the service that was asked to end. Returns its folder.
    pub fn ends(mut self) -> Result<tempfile::TempDir> {
        let ended = self.thread.take().unwrap().join().unwrap();
        ended.map(|()| self.folder.take().unwrap())
    }

    /// The folder of the database and the files.
    pub fn data(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().to_owned()
    }

    /// Makes a prediction that nobody waits for.
    pub async fn prediction(&self, input: Value) -> String {
        let made = self.post("/v1/models/stability-ai/sdxl/predictions", json!({ "input": input })).await;
        assert_eq!(made.status, 201, "{made:?}");
        format!("/v1/predictions/{}", made.body["id"].as_str().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.engine.go_on();
    }
}

pub async fn read(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let headers =
        answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    let text = answer.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

/// Whether a value has all fields of `part`, with values that have all of theirs. A text ending in `…` is the beginning of one.
pub fn has(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(name, part)| value.get(name).is_some_and(|value| has(value, part)))
        }
        (Value::Array(value), Value::Array(part)) => {
            value.len() == part.len() && value.iter().zip(part).all(|(value, part)| has(value, part))
        }
        (Value::String(value), Value::String(part)) => match part.strip_suffix('…') {
            Some(beginning) => value.starts_with(beginning),
            None => value == part,
        },
        _ => value == part,
    }
}

/// A request, and the answer that it is to have.
pub type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>, u16, Value);

/// Asks a table of requests: method, path, headers, body; status and parts of the answer.
pub async fn table(service: &Service, cases: &[Case<'_>]) {
    for (method, path, headers, body, status, part) in cases {
        let mut request = service.request(method, path);
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body((*body).to_owned());
        }
        let answer = read(request).await;
        assert_eq!(answer.status, *status, "{method} {path} {body:?}: {answer:?}");
        assert!(has(&answer.body, part), "{method} {path} {body:?}: expected {part}, found {}", answer.body);
    }
}
