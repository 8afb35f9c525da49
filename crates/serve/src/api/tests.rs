//! A service for tests that look into it, on the loopback interface, with an engine that computes nothing.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::state::{AppState, Parts, Setup};
use super::tokens::Tokens;
use crate::inputs::Inputs;
use crate::queue::Queue;
use crate::settings::Settings;
pub(crate) use crate::stand_in::{StandIn, png};
use crate::storage::{Links, Storage};
use crate::worker;

/// A running service.
pub(crate) struct Service {
    pub(crate) state: AppState,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    engine: Arc<StandIn>,
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
        let engine = Arc::new(StandIn::default());
        let drain = watch::Sender::new(false);
        let bodies = super::body::budget(settings.max_bodies);
        let state = AppState::new(Parts {
            settings: settings.clone(),
            queue: queue.clone(),
            storage: storage.clone(),
            links,
            inputs: inputs.clone(),
            engine: engine.clone(),
            version: super::state::base_version("stand-in"),
            tokens: Tokens::default(),
            bodies,
            document: super::document(),
            metrics: Default::default(),
            setup: setup.subscribe(),
            drain: drain.clone(),
        });
        let router = super::router(state.clone()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let work = worker::run(settings, queue, storage, inputs, engine.clone(), drain.subscribe());
        tokio::spawn(async move { work.await.unwrap() });
        let client =
            reqwest::Client::builder().tls_backend_preconfigured(crate::tls::client_config().unwrap());
        Service { state, url, client: client.no_proxy().build().unwrap(), engine, _folder: folder }
    }

    /// Sends JSON. Returns the status and the answer's JSON, or null.
    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.client.post(format!("{}{path}", self.url)).json(&body)).await
    }

    /// Returns the status and the answer's JSON, or null.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Lets predictions that wait go on.
    pub(crate) fn go_on(&self) {
        self.engine.go_on();
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

impl Drop for Service {
    fn drop(&mut self) {
        self.engine.go_on();
    }
}
