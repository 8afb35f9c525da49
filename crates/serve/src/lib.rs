//! The service: predictions, trainings and preparations of these as durable jobs over HTTP.
//!
//! ```text
//! api/        HTTP: Cog at the root, Replicate under /v1, OpenAI's images, A1111's web UI, the page
//! queue/      jobs in SQLite or Postgres
//! worker/     takes jobs, has the engine compute them, stores what they make
//! storage/    files in a folder or in S3, and signed links to them
//! inputs/     files that requests name: data URIs, URLs, uploads
//! webhooks.rs what is told of jobs' events
//! engine.rs   what the binary fills in
//! service.rs  the process: what runs beside each other, and how all of it ends; connections.rs
//! tls.rs      TLS of connections that the service makes
//! page/       the page's three files
//! ```

pub mod api;
mod connections;
pub mod engine;
pub mod error;
pub mod inputs;
pub mod job;
pub mod queue;
mod service;
pub mod settings;
#[cfg(test)]
mod stand_in;
pub mod storage;
#[cfg(test)]
mod stub_s3;
pub mod tls;
pub mod webhooks;
pub mod worker;

pub use service::{serve, worker};
