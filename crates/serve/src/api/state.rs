//! What every handler has.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::metrics::Metrics;
use super::tokens::Tokens;
use crate::engine::Engine;
use crate::inputs::Inputs;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::storage::{Links, Storage};

/// The name of the base model.
pub const BASE: &str = "stability-ai/sdxl";
/// Published versions of the base model, whose requests the service takes for those of its own.
pub const ALIASES: [&str; 2] = [
    "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b",
    "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc",
];

/// The version of Cog whose interface the service has. Clients read outputs of versions before 0.3.9 in another way.
pub const COG_VERSION: &str = "0.9.5";

/// What every handler has.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// The fields of [`AppState`].
pub struct Parts {
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// Jobs and records.
    pub queue: Queue,
    /// Files.
    pub storage: Storage,
    /// Signed URLs.
    pub links: Links,
    /// Files that requests name.
    pub inputs: Inputs,
    /// What computes.
    pub engine: Arc<dyn Engine>,
    /// The id of the base model's version.
    pub version: String,
    /// Tokens.
    pub tokens: Tokens,
    /// The OpenAPI document.
    pub document: Value,
    /// What is left of the memory for bodies of requests.
    pub bodies: Arc<Semaphore>,
    /// Numbers for `/metrics`.
    pub metrics: Metrics,
    /// How the engine's set-up goes.
    pub setup: watch::Receiver<Setup>,
    /// True when the service is to end.
    pub drain: watch::Sender<bool>,
}

/// How the engine's set-up goes. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// When the set-up began.
    pub started_at: i64,
    /// When it ended.
    pub completed_at: Option<i64>,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

impl AppState {
    /// A state of these parts.
    pub fn new(parts: Parts) -> AppState {
        AppState(Arc::new(parts))
    }

    /// Whether the service is to end.
    pub fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The id of the base model's version: it changes with the program's version and with the model.
pub fn base_version(model: &str) -> String {
    let sum = Sha256::digest(format!("calotype {}\n{model}", env!("CARGO_PKG_VERSION")));
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}
