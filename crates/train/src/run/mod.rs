//! A run: a training with its folder, metrics, samples and checkpoints.
//!
//! ```text
//! dir.rs       the folder, and what may be in it
//! metrics.rs   metrics.jsonl
//! samples.rs   pictures on the way
//! session.rs   the loop
//! timer.rs     when a checkpoint is due by time
//! observer.rs  what it tells whoever started it, and asks of them
//! ```

mod dir;
mod metrics;
mod observer;
mod samples;
mod session;
mod timer;

pub use dir::{
    CHECKPOINTS, FILES, METRICS, PREPROCESSED, RESULT, RunDir, SAMPLES, SETTINGS, holds_run, no_links,
};
pub use metrics::{Metrics, MetricsRead, read};
pub use observer::{Observer, Sample};
pub use samples::Samples;
pub use session::{Best, RunOptions, Session};
pub use timer::CheckpointTimer;
