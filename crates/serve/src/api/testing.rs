//! A service for tests, on the loopback interface: its engine computes nothing, and its worker makes pictures of one colour.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::{ImageFormat, RgbImage};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::state::{AppState, Parts, Setup};
use super::tokens::Tokens;
use crate::engine::{Engine, EngineError, Predicted, Trained, Work};
use crate::inputs::Inputs;
use crate::job::{Job, Kind, Status};
use crate::queue::{Outcome, Queue};
use crate::settings::Settings;
use crate::storage::{Links, Storage};

/// A running service.
pub(crate) struct Service {
    pub(crate) state: AppState,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Service {
    /// Starts a service with a worker.
    pub(crate) async fn start() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let settings = Arc::new(Settings::in_folder(folder.path()));
        let queue = Queue::open(&settings).await.unwrap();
        let (storage, links) = (Storage::open(&settings).unwrap(), Links::new([1; 32]));
        let inputs = Inputs::new(&settings, storage.clone(), queue.clone(), links.clone()).unwrap();
        let setup = watch::Sender::new(Setup { started_at: 0, completed_at: Some(0), error: None });
        let state = AppState::new(Parts {
            settings,
            queue,
            storage,
            links,
            inputs,
            engine: Arc::new(StandIn),
            version: super::state::base_version("stand-in"),
            tokens: Tokens::default(),
            document: super::document(),
            metrics: Default::default(),
            setup: setup.subscribe(),
            drain: watch::Sender::new(false),
        });
        let router = super::router(state.clone()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        tokio::spawn(work(state.clone()));
        let client =
            reqwest::Client::builder().tls_backend_preconfigured(crate::tls::client_config().unwrap());
        Service { state, url, client: client.no_proxy().build().unwrap(), _folder: folder }
    }

    /// Sends JSON. Returns the status and the answer's JSON, or null.
    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.client.post(format!("{}{path}", self.url)).json(&body)).await
    }

    /// Returns the status and the answer's JSON, or null.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(format!("{}{path}", self.url))).await
    }

    /// The inputs of all predictions, the oldest first.
    pub(crate) async fn inputs(&self) -> Vec<Map<String, Value>> {
        let filter = crate::queue::Filter { ascending: true, limit: 100, ..Default::default() };
        let jobs = self.state.queue.list(&filter).await.unwrap();
        jobs.into_iter().map(|job| job.made.input).collect()
    }
}

/// Sends a request. Returns the status and the answer's JSON, or null.
pub(crate) async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// A PNG file of one colour.
pub(crate) fn png(width: u32, height: u32, gray: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, [gray; 3].into()).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Takes predictions: a picture as gray as the seed says; for the prompt `fail` an error; for `wait` no end.
async fn work(state: AppState) {
    let mut changes = state.queue.changes();
    loop {
        while let Some(job) =
            state.queue.claim("worker", &[Kind::Prediction], Duration::from_secs(600)).await.unwrap()
        {
            if job.made.input.get("prompt") != Some(&json!("wait")) {
                end(&state, &job).await;
            }
        }
        // Whoever sends nothing within this time has nothing to compute.
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.recv()).await;
    }
}

async fn end(state: &AppState, job: &Job) {
    let input = &job.made.input;
    let has_failed = input.get("prompt") == Some(&json!("fail"));
    let side = |name: &str| input.get(name).and_then(Value::as_u64).map_or(16, |side| side as u32);
    let gray = input.get("seed").and_then(Value::as_u64).unwrap_or(0) as u8;
    let key = format!("jobs/{}/{}/out-0.png", job.id(), job.attempt);
    state.storage.put(&key, png(side("width"), side("height"), gray).into()).await.unwrap();
    let outcome = Outcome {
        status: if has_failed { Status::Failed } else { Status::Succeeded },
        output: (!has_failed).then(|| json!([key])),
        error: has_failed.then(|| "it failed".into()),
        metrics: Map::new(),
        logs: String::new(),
        record: None,
    };
    state.queue.finish(job.id(), job.attempt, outcome).await.unwrap();
}

/// An engine that takes all inputs whose width is not 8.
struct StandIn;

impl Engine for StandIn {
    fn model(&self) -> String {
        "stand-in".into()
    }

    fn set_up(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn check_prediction(&self, input: &Map<String, Value>) -> Result<(), EngineError> {
        match input.get("width") == Some(&json!(8)) {
            true => {
                Err(EngineError::Input { field: "width".into(), problem: "too small for the model".into() })
            }
            false => Ok(()),
        }
    }

    fn check_training(&self, _: &Map<String, Value>) -> Result<(), EngineError> {
        Ok(())
    }

    fn predict(&self, _: &Map<String, Value>, _: &Path, _: &dyn Work) -> Result<Predicted, EngineError> {
        Err(EngineError::Failed("the stand-in computes nothing".into()))
    }

    fn train(&self, _: &Map<String, Value>, _: &Path, _: &dyn Work) -> Result<Trained, EngineError> {
        Err(EngineError::Failed("the stand-in computes nothing".into()))
    }
}
